//! An OPC UA server made with async-opcua: `opcua-server PORT STORE [secure]`. Prints "ready PORT" once it listens.
//!
//! `nsu=urn:headrace:test;s=Counter` is an Int32 that grows by one every 100 ms, with source times exactly 100 ms
//! apart, and `s=Fast` the same every 10 ms. `s=Still` never changes. `s=Ramp` is the counter as a Double, with an EURange
//! of 0 to 200.
//!
//! `secure`: every current policy, with STORE/server.der and server.pem; users are reader/s3cret or STORE/user.der; every
//! client's certificate is taken.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opcua::crypto::SecurityPolicy;
use opcua::server::address_space::VariableBuilder;
use opcua::server::node_manager::memory::SimpleNodeManager;
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, ServerHandle, ServerUserToken};
use opcua::types::{
    DataTypeId, DataValue, DateTime, ExtensionObject, MessageSecurityMode, NodeId, ObjectId, Range, StatusCode, Variant,
};
use opcua_server::{leave_to_clients, open_server};

const NAMESPACE: &str = "urn:headrace:test";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is before 1970").as_millis() as i64
}

/// From ms since 1970 to ticks of 100 ns since 1601.
fn stamp(ms: i64) -> DateTime {
    DateTime::from(ms * 10_000 + 116_444_736_000_000_000)
}

/// Change n has the value n and the source time (first + n periods), also where the timer was late.
async fn count(manager: Arc<SimpleNodeManager>, handle: ServerHandle, id: NodeId, period_ms: i64, real: bool) {
    let first = now_ms();
    let mut change: i64 = 0;
    loop {
        let due = first + change * period_ms;
        let wait = due - now_ms();
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait as u64)).await;
        }
        let value = DataValue {
            value: Some(if real { Variant::Double(change as f64) } else { Variant::Int32(change as i32) }),
            status: Some(StatusCode::Good),
            source_timestamp: Some(stamp(due)),
            server_timestamp: Some(DateTime::now()),
            ..Default::default()
        };
        manager.set_value(handle.subscriptions(), &id, None, value).expect("the node is there");
        change += 1;
    }
}

fn secure(mut builder: ServerBuilder, store: &Path) -> ServerBuilder {
    builder = builder
        .certificate_path(store.join("server.der"))
        .private_key_path(store.join("server.pem"))
        .trust_client_certs(true)
        .add_user_token("reader", ServerUserToken::user_pass("reader", "s3cret"))
        .add_user_token("holder", ServerUserToken::x509("holder", &store.join("user.der")));
    let users = [ANONYMOUS_USER_TOKEN_ID, "reader", "holder"];
    for policy in
        [SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep, SecurityPolicy::Aes256Sha256RsaPss]
    {
        for mode in [MessageSecurityMode::Sign, MessageSecurityMode::SignAndEncrypt] {
            builder = builder.add_endpoint(format!("{policy} {mode}"), ("/", policy, mode, &users as &[&str]));
        }
    }
    builder
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().and_then(|port| port.parse().ok()).expect("opcua-server PORT STORE");
    let store = std::path::PathBuf::from(arguments.next().expect("opcua-server PORT STORE"));
    let mut builder = open_server(port, &store, "Headrace test server", "urn:headrace:test:server", NAMESPACE);
    if arguments.next().as_deref() == Some("secure") {
        builder = secure(builder, &store);
    }
    leave_to_clients(&mut builder.limits_mut().subscriptions, 10_000);
    let (server, handle) = builder.build().expect("the configuration is right");
    let manager = handle.node_managers().get_of_type::<SimpleNodeManager>().expect("it was just added");
    let namespace = handle.get_namespace_index(NAMESPACE).expect("it was just added");
    let variables = [("Counter", 100, false), ("Fast", 10, false), ("Still", 0, false), ("Ramp", 100, true)];
    {
        let mut space = manager.address_space().write();
        for (name, _, real) in variables {
            VariableBuilder::new(&NodeId::new(namespace, name), name, name)
                .data_type(if real { DataTypeId::Double } else { DataTypeId::Int32 })
                .value(if real { Variant::Double(0.0) } else { Variant::Int32(0) })
                .organized_by(ObjectId::ObjectsFolder)
                .insert(&mut *space);
        }
        VariableBuilder::new(&NodeId::new(namespace, "Ramp/EURange"), "EURange", "EURange")
            .data_type(DataTypeId::Range)
            .value(ExtensionObject::from_message(Range { low: 0.0, high: 200.0 }))
            .property_of(NodeId::new(namespace, "Ramp"))
            .insert(&mut *space);
    }
    for (name, period_ms, real) in variables.into_iter().filter(|(_, period_ms, _)| *period_ms > 0) {
        tokio::spawn(count(manager.clone(), handle.clone(), NodeId::new(namespace, name), period_ms, real));
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
    println!("ready {port}");
    server.run_with(listener).await.expect("the server runs");
}
