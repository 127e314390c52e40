//! A load of OPC UA values, made with async-opcua: `opcua-load PORT STORE ITEMS PERIOD_MS`. Prints "ready PORT" once it
//! listens.
//!
//! Each of `nsu=urn:headrace:test;s=0` to `s=ITEMS-1` is a Double that changes every PERIOD_MS: a slow wave in steps of
//! 0.01, as a transmitter gives it. The changes of one period have one source time. They go to whoever monitors them,
//! and not into the address space, where a read finds the first value. With PERIOD_MS 0 nothing changes. Where there is
//! STORE/server.der, with server.pem, it also has an endpoint with Basic256Sha256 and SignAndEncrypt.

use std::net::Ipv4Addr;
use std::time::Duration;

use opcua::crypto::SecurityPolicy;
use opcua::server::address_space::VariableBuilder;
use opcua::server::node_manager::memory::SimpleNodeManager;
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerHandle};
use opcua::types::{
    AttributeId, DataTypeId, DataValue, DateTime, MessageSecurityMode, NodeId, ObjectId, StatusCode, Variant,
};
use opcua_server::{leave_to_clients, open_server};

const NAMESPACE: &str = "urn:headrace:test";
const USAGE: &str = "opcua-load PORT STORE ITEMS PERIOD_MS";

fn wave(change: usize, item: usize) -> f64 {
    let angle = (change + item * 37) as f64 / 200.0;
    (angle.sin() * 10_000.0).round() / 100.0
}

async fn change(handle: ServerHandle, nodes: Vec<NodeId>, period: Duration) {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0.. {
        timer.tick().await;
        let now = DateTime::now();
        let values = nodes.iter().enumerate().map(|(item, node)| {
            let value = DataValue {
                value: Some(Variant::Double(wave(number, item))),
                status: Some(StatusCode::Good),
                source_timestamp: Some(now),
                server_timestamp: Some(now),
                ..Default::default()
            };
            (value, node, AttributeId::Value)
        });
        handle.subscriptions().notify_data_change(values);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, store, items, period] = words.as_slice() else { panic!("{USAGE}") };
    let port: u16 = port.parse().expect(USAGE);
    let items: usize = items.parse().expect(USAGE);
    let period: u64 = period.parse().expect(USAGE);
    let store = std::path::Path::new(store);
    let mut builder = open_server(port, store, "Headrace load", "urn:headrace:test:load", NAMESPACE);
    if store.join("server.der").exists() {
        let place = ("/", SecurityPolicy::Basic256Sha256, MessageSecurityMode::SignAndEncrypt);
        builder = builder
            .application_uri("urn:headrace:test:server")
            .certificate_path(store.join("server.der"))
            .private_key_path(store.join("server.pem"))
            .trust_client_certs(true)
            .add_endpoint("secure", (place.0, place.1, place.2, &[ANONYMOUS_USER_TOKEN_ID] as &[&str]));
    }
    let limits = &mut builder.limits_mut().subscriptions;
    leave_to_clients(limits, 1000);
    limits.max_notifications_per_publish = 0; // no limit
    let (server, handle) = builder.build().expect("the configuration is right");
    let manager = handle.node_managers().get_of_type::<SimpleNodeManager>().expect("it was just added");
    let namespace = handle.get_namespace_index(NAMESPACE).expect("it was just added");
    let nodes: Vec<NodeId> = (0..items).map(|item| NodeId::new(namespace, item.to_string())).collect();
    {
        let mut space = manager.address_space().write();
        for (item, node) in nodes.iter().enumerate() {
            VariableBuilder::new(node, item.to_string(), item.to_string())
                .data_type(DataTypeId::Double)
                .value(wave(0, item))
                .organized_by(ObjectId::ObjectsFolder)
                .insert(&mut *space);
        }
    }
    if period > 0 {
        tokio::spawn(change(handle.clone(), nodes, Duration::from_millis(period)));
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
    println!("ready {port}");
    server.run_with(listener).await.expect("the server runs");
}
