//! The devices of a config as fast as one core can be them: what `headrace simulate --load` runs.
//!
//! Reads a plan (one line of JSON) from stdin and listens. Prints `{"ready": true}`, then its counters every second, as
//! JSON lines; where it can't listen, `{"taken": name, "why": text}`. Ends when stdin does, so that it outlives nobody.

mod modbus;
mod opcua_devices;
mod plan;

use std::io::{BufRead, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use plan::{Counters, Plan};

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads us any more: then stdin is about to end as well.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn listen(name: &str, host: &str, port: u16) -> TcpListener {
    match TcpListener::bind((host, port)).await {
        Ok(listener) => listener,
        Err(reason) => {
            let why = serde_json::json!({"taken": name, "host": host, "port": port, "why": reason.to_string()});
            say(&why.to_string());
            std::process::exit(1);
        }
    }
}

async fn start(plan: Plan, counters: &Arc<Counters>) -> Result<(), String> {
    if plan.times.images < 2 || plan.times.period_ns == 0 {
        return Err("a plan needs two images and a period".to_owned());
    }
    for line in &plan.modbus {
        let listener = listen(&line.name, &line.host, line.port).await;
        let device = modbus::Device::new(line, plan.times, counters.clone())?;
        tokio::spawn(modbus::serve(listener, Arc::new(device)));
    }
    for endpoint in &plan.opcua {
        let listener = listen(&endpoint.name, &endpoint.host, endpoint.port).await;
        let (server, device) = opcua_devices::Device::new(endpoint, plan.times, &plan.store, counters.clone())?;
        tokio::spawn(device.run());
        tokio::spawn(server.run_with(listener));
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut first = String::new();
    let read = std::io::stdin().lock().read_line(&mut first);
    let plan = match read.map_err(|reason| reason.to_string()).and_then(|_| parsed(&first)) {
        Ok(plan) => plan,
        Err(why) => return refuse(&why),
    };
    drop(first);
    let counters = Arc::new(Counters::default());
    if let Err(why) = start(plan, &counters).await {
        return refuse(&why);
    }
    let last = counters.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        say(&last.line());
        std::process::exit(0);
    });
    say(r#"{"ready":true}"#);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        say(&counters.line());
    }
}

fn parsed(line: &str) -> Result<Plan, String> {
    serde_json::from_str(line).map_err(|reason| reason.to_string())
}

fn refuse(why: &str) {
    say(&serde_json::json!({"refused": why}).to_string());
    std::process::exit(2);
}
