//! What the servers share.

use std::net::Ipv4Addr;
use std::path::Path;

use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::simple_node_manager;
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, SubscriptionLimits};
use opcua::types::MessageSecurityMode;

/// A server at a port of 127.0.0.1 whose own files are in `store`, open to everyone, with one namespace.
pub fn open_server(port: u16, store: &Path, name: &str, uri: &str, namespace: &str) -> ServerBuilder {
    let metadata = NamespaceMetadata { namespace_uri: namespace.to_owned(), ..Default::default() };
    let place = ("/", opcua::crypto::SecurityPolicy::None, MessageSecurityMode::None);
    ServerBuilder::new()
        .application_name(name)
        .application_uri(uri)
        .product_uri(uri)
        .create_sample_keypair(false)
        .pki_dir(store.join("pki"))
        .host(Ipv4Addr::LOCALHOST.to_string())
        .port(port)
        .discovery_urls(vec![format!("opc.tcp://127.0.0.1:{port}/")])
        .max_session_timeout_ms(3_600_000)
        .add_endpoint("none", (place.0, place.1, place.2, &[ANONYMOUS_USER_TOKEN_ID] as &[&str]))
        .with_node_manager(simple_node_manager(metadata, uri))
}

/// The client decides how often it is told, and of how many items; `queue` values wait for it.
pub fn leave_to_clients(limits: &mut SubscriptionLimits, queue: usize) {
    limits.min_sampling_interval_ms = 0.0;
    limits.min_publishing_interval_ms = 10.0;
    limits.max_monitored_items_per_sub = 0; // no limit
    limits.max_monitored_item_queue_size = queue;
    limits.max_queued_notifications = queue;
    limits.max_lifetime_count = 1_000_000;
    limits.max_keep_alive_count = 100_000;
}
