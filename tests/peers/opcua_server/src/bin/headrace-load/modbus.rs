//! Modbus TCP devices that show the plan's images: functions 1 to 4, and exceptions as the Python servers give them
//! (MODBUS Application Protocol V1.1b3, 6.1 to 6.4 and 7).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::plan::{Counters, Line, Span, Times, bytes};

const HEADER: usize = 7;
const MOST_PDU: usize = 253;
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;
const NO_SUCH_UNIT: u8 = 0x0B;

struct Shown {
    function: u8,
    first: u32,
    count: u32,
    tags: Vec<u32>,
    images: Vec<Vec<u8>>,
}

pub struct Device {
    units: HashMap<u8, Vec<Shown>>,
    times: Times,
    counters: Arc<Counters>,
}

impl Device {
    pub fn new(line: &Line, times: Times, counters: Arc<Counters>) -> Result<Self, String> {
        let mut units = HashMap::new();
        for unit in &line.units {
            let spans = unit.spans.iter().map(|span| shown(span, times.images)).collect::<Result<Vec<_>, _>>()?;
            units.insert(unit.unit, spans);
        }
        Ok(Self { units, times, counters })
    }

    /// Appends the answer to `frame`, a whole one, to `out`.
    fn answer(&self, frame: &[u8], out: &mut Vec<u8>) {
        self.counters.requests.fetch_add(1, Relaxed);
        let start = out.len();
        out.extend_from_slice(&frame[..HEADER]);
        if let Err(code) = self.read(frame[6], &frame[HEADER..], out) {
            self.counters.exceptions.fetch_add(1, Relaxed);
            out.truncate(start + HEADER);
            out.extend_from_slice(&[frame[HEADER] | 0x80, code]);
        }
        let length = (out.len() - start - 6) as u16;
        out[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
    }

    fn read(&self, unit: u8, pdu: &[u8], out: &mut Vec<u8>) -> Result<(), u8> {
        let spans = self.units.get(&unit).ok_or(NO_SUCH_UNIT)?;
        let function = pdu[0];
        if !(1..=4).contains(&function) {
            return Err(ILLEGAL_FUNCTION);
        }
        let &[_, a, b, c, d] = pdu else { return Err(ILLEGAL_VALUE) };
        let (first, count) = (u32::from(u16::from_be_bytes([a, b])), u32::from(u16::from_be_bytes([c, d])));
        let bits = function <= 2;
        if count < 1 || count > if bits { 2000 } else { 125 } {
            return Err(ILLEGAL_VALUE);
        }
        let end = first + count;
        let within = |span: &&Shown| span.function == function && span.first <= first && end <= span.first + span.count;
        let span = spans.iter().find(within).ok_or(ILLEGAL_ADDRESS)?;
        let image = &span.images[self.times.image(self.times.turn())];
        let at = (first - span.first) as usize;
        let size = if bits { count.div_ceil(8) } else { 2 * count } as usize;
        out.extend_from_slice(&[function, size as u8]);
        if bits {
            let start = out.len();
            out.resize(start + size, 0);
            for bit in 0..count as usize {
                let from = at + bit;
                out[start + bit / 8] |= (image[from / 8] >> (from % 8) & 1) << (bit % 8);
            }
        } else {
            out.extend_from_slice(&image[2 * at..2 * at + size]);
        }
        let begun = |address: u32| span.tags.partition_point(|&each| each < address);
        self.counters.readings.fetch_add((begun(end) - begun(first)) as u64, Relaxed);
        Ok(())
    }
}

fn shown(span: &Span, images: usize) -> Result<Shown, String> {
    let size = if span.function <= 2 { span.count.div_ceil(8) } else { 2 * span.count } as usize;
    let found = span.images.iter().map(|each| bytes(each)).collect::<Result<Vec<_>, _>>()?;
    if found.len() != images || found.iter().any(|each| each.len() != size) {
        return Err(format!("a span of {} addresses needs {images} images of {size} bytes", span.count));
    }
    Ok(Shown { function: span.function, first: span.first, count: span.count, tags: span.tags.clone(), images: found })
}

/// Takes clients, for ever.
pub async fn serve(listener: TcpListener, device: Arc<Device>) {
    loop {
        // An error here is a client that left, or too many open files: both pass.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let device = device.clone();
        tokio::spawn(async move {
            device.counters.clients.fetch_add(1, Relaxed);
            talk(client, &device).await;
            device.counters.clients.fetch_sub(1, Relaxed);
        });
    }
}

/// One client, until it leaves or sends what is no Modbus TCP frame.
async fn talk(mut client: TcpStream, device: &Device) {
    let _ = client.set_nodelay(true);
    let (mut held, mut out) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    loop {
        match client.read_buf(&mut held).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut at = 0;
        while held.len() - at > HEADER {
            let frame = &held[at..];
            let rest = usize::from(u16::from_be_bytes([frame[4], frame[5]]));
            if frame[2] != 0 || frame[3] != 0 || !(2..=MOST_PDU + 1).contains(&rest) {
                return;
            }
            let Some(whole) = frame.get(..6 + rest) else { break };
            device.answer(whole, &mut out);
            at += 6 + rest;
        }
        held.drain(..at);
        if client.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}
