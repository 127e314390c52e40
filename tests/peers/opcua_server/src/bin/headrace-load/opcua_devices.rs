//! OPC UA servers that show the plan's images, without encryption. A change has the begin of its period as source time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use opcua::crypto::SecurityPolicy;
use opcua::server::address_space::{ObjectBuilder, VariableBuilder};
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::{SimpleNodeManager, simple_node_manager};
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, Server, ServerBuilder, ServerHandle, ServerUserToken};
use opcua::types::{
    Array, ByteString, DataTypeId, DataValue, DateTime, MessageSecurityMode, NodeId, NumericRange, ObjectId,
    StatusCode, UAString, Variant, VariantScalarTypeId,
};
use opcua_server::leave_to_clients;
use serde_json::Value;

use crate::plan::{Counters, Endpoint, Times, bytes};

const APPLICATION: &str = "urn:headrace:simulator";
/// A server that is so many periods late leaves some out, and counts them.
const MOST_LATE: u64 = 10;

struct Shown {
    id: NodeId,
    values: Vec<Option<Variant>>,
}

/// The nodes of one namespace, with the node manager that has them.
struct Space {
    manager: Arc<SimpleNodeManager>,
    nodes: Vec<Shown>,
}

pub struct Device {
    handle: ServerHandle,
    spaces: Vec<Space>,
    times: Times,
    counters: Arc<Counters>,
}

fn build(endpoint: &Endpoint, store: &Path) -> Result<(Server, ServerHandle), String> {
    let mut users = Vec::new();
    let mut builder = ServerBuilder::new()
        .application_name("Headrace load")
        .application_uri(APPLICATION)
        .product_uri(APPLICATION)
        .create_sample_keypair(false)
        .pki_dir(store.join("pki"))
        .host(endpoint.host.clone())
        .port(endpoint.port)
        .discovery_urls(vec![endpoint.url.clone()])
        .max_sessions(1000)
        .max_session_timeout_ms(3_600_000);
    for (user, password) in &endpoint.users {
        match user {
            None => users.push(ANONYMOUS_USER_TOKEN_ID.to_owned()),
            Some(name) => {
                builder = builder.add_user_token(name, ServerUserToken::user_pass(name, password));
                users.push(name.clone());
            }
        }
    }
    let path = endpoint.url.splitn(4, '/').nth(3).map_or("/".to_owned(), |rest| format!("/{rest}"));
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let none = (path.as_str(), SecurityPolicy::None, MessageSecurityMode::None, users.as_slice());
    builder = builder.add_endpoint("none", none);
    for uri in &endpoint.namespaces {
        let metadata = NamespaceMetadata { namespace_uri: uri.clone(), ..Default::default() };
        builder = builder.with_node_manager(simple_node_manager(metadata, uri));
    }
    let limits = builder.limits_mut();
    limits.max_message_size = 16 * 1024 * 1024;
    leave_to_clients(&mut limits.subscriptions, 1000);
    limits.subscriptions.max_notifications_per_publish = 0; // no limit
    builder.build().map_err(|reason| format!("{}: {reason}", endpoint.name))
}

impl Device {
    /// The server with its address space laid out, ready to `run_with` a listener.
    pub fn new(
        endpoint: &Endpoint,
        times: Times,
        store: &Path,
        counters: Arc<Counters>,
    ) -> Result<(Server, Self), String> {
        let (server, handle) = build(endpoint, store)?;
        let mut spaces = Vec::new();
        for (at, uri) in endpoint.namespaces.iter().enumerate() {
            if at < endpoint.numbered && handle.get_namespace_index(uri) != Some(at as u16 + 2) {
                return Err(format!("{}: namespace {} can't have its index", endpoint.name, at + 2));
            }
            let manager = handle.node_managers().get_by_name::<SimpleNodeManager>(uri).ok_or("no node manager")?;
            spaces.push(Space { manager, nodes: Vec::new() });
        }
        let first = times.image(times.turn());
        for node in &endpoint.nodes {
            let uri = endpoint.namespaces.get(node.space).ok_or("a node of no namespace")?;
            let index = handle.get_namespace_index(uri).ok_or("a namespace without an index")?;
            let mut id: NodeId = node.id.parse().map_err(|_| format!("{} is no node id", node.id))?;
            id.namespace = index;
            let values = node.values.iter().map(|each| variant(&node.kind, each)).collect::<Result<Vec<_>, _>>()?;
            if values.len() != times.images {
                return Err(format!("{} has {} values for {} images", node.id, values.len(), times.images));
            }
            let folder = NodeId::new(index, format!("folder of {}", endpoint.name));
            let space = &mut spaces[node.space];
            let mut address = space.manager.address_space().write();
            if space.nodes.is_empty() {
                ObjectBuilder::new(&folder, endpoint.name.as_str(), endpoint.name.as_str())
                    .is_folder()
                    .organized_by(ObjectId::ObjectsFolder)
                    .insert(&mut *address);
            }
            let mut made = VariableBuilder::new(&id, node.name.as_str(), node.name.as_str())
                .data_type(data_type(&node.kind)?)
                .organized_by(folder);
            made = if node.kind.ends_with("[]") { made.value_rank(1) } else { made };
            made = made.value(values[first].clone().unwrap_or_default());
            // One that is there already, of another tag, keeps its own values.
            if made.insert(&mut *address) {
                drop(address);
                space.nodes.push(Shown { id, values });
            }
        }
        Ok((server, Self { handle, spaces, times, counters }))
    }

    /// Writes every change at its time, for ever.
    pub async fn run(self) {
        let mut turn = self.times.turn();
        let mut shown = self.times.image(turn);
        self.write(turn, None, shown);
        loop {
            let late = self.times.turn().saturating_sub(turn + 1);
            if late > MOST_LATE {
                turn += late;
                self.counters.skipped.fetch_add(late, Relaxed);
            }
            turn += 1;
            tokio::time::sleep(self.times.until(turn)).await;
            let next = self.times.image(turn);
            self.write(turn, Some(shown), next);
            shown = next;
            tokio::task::yield_now().await;
        }
    }

    fn write(&self, turn: u64, before: Option<usize>, next: usize) {
        let source = DateTime::from((self.times.begin(turn) / 100) as i64 + 116_444_736_000_000_000);
        let now = DateTime::now();
        for space in &self.spaces {
            let changed =
                space.nodes.iter().filter(|node| before.is_none_or(|shown| node.values[shown] != node.values[next]));
            let values = changed.map(|node| {
                self.counters.changes.fetch_add(1, Relaxed);
                let value = DataValue {
                    value: node.values[next].clone(),
                    status: Some(if node.values[next].is_some() {
                        StatusCode::Good
                    } else {
                        StatusCode::BadSensorFailure
                    }),
                    source_timestamp: Some(source),
                    server_timestamp: Some(now),
                    ..Default::default()
                };
                (&node.id, None::<&NumericRange>, value)
            });
            // All nodes are ours and variables: it can't fail.
            let _ = space.manager.set_values(self.handle.subscriptions(), values);
        }
    }
}

fn data_type(kind: &str) -> Result<DataTypeId, String> {
    Ok(match kind.trim_end_matches("[]") {
        "bool" => DataTypeId::Boolean,
        "int8" => DataTypeId::SByte,
        "int16" => DataTypeId::Int16,
        "int32" => DataTypeId::Int32,
        "int64" => DataTypeId::Int64,
        "uint8" => DataTypeId::Byte,
        "uint16" => DataTypeId::UInt16,
        "uint32" => DataTypeId::UInt32,
        "uint64" => DataTypeId::UInt64,
        "float32" => DataTypeId::Float,
        "float64" => DataTypeId::Double,
        "string" => DataTypeId::String,
        "bytes" => DataTypeId::ByteString,
        other => return Err(format!("{other} is no type of a tag")),
    })
}

fn variant(kind: &str, value: &Value) -> Result<Option<Variant>, String> {
    let wrong = || format!("{value} is no {kind}");
    if value.is_null() {
        return Ok(None);
    }
    if let Some(element) = kind.strip_suffix("[]") {
        let each = value.as_array().ok_or_else(wrong)?.iter();
        let parts: Vec<Variant> =
            each.map(|part| variant(element, part)?.ok_or_else(wrong)).collect::<Result<_, String>>()?;
        let scalar = match parts.first() {
            Some(first) => first.scalar_type_id().ok_or_else(wrong)?,
            None => VariantScalarTypeId::Double,
        };
        return Ok(Some(Variant::from(Array::new(scalar, parts).map_err(|_| wrong())?)));
    }
    let signed = || value.as_i64().ok_or_else(wrong);
    let unsigned = || value.as_u64().ok_or_else(wrong);
    let text = || value.as_str().ok_or_else(wrong);
    Ok(Some(match kind {
        "bool" => Variant::Boolean(value.as_bool().ok_or_else(wrong)?),
        "int8" => Variant::SByte(signed()?.try_into().map_err(|_| wrong())?),
        "int16" => Variant::Int16(signed()?.try_into().map_err(|_| wrong())?),
        "int32" => Variant::Int32(signed()?.try_into().map_err(|_| wrong())?),
        "int64" => Variant::Int64(signed()?),
        "uint8" => Variant::Byte(unsigned()?.try_into().map_err(|_| wrong())?),
        "uint16" => Variant::UInt16(unsigned()?.try_into().map_err(|_| wrong())?),
        "uint32" => Variant::UInt32(unsigned()?.try_into().map_err(|_| wrong())?),
        "uint64" => Variant::UInt64(unsigned()?),
        "float32" => Variant::Float(value.as_f64().ok_or_else(wrong)? as f32),
        "float64" => Variant::Double(value.as_f64().ok_or_else(wrong)?),
        "string" => Variant::String(UAString::from(text()?)),
        "bytes" => Variant::ByteString(ByteString::from(bytes(text()?)?)),
        _ => return Err(wrong()),
    }))
}
