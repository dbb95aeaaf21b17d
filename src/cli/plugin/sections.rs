//! The names of the ABI, by the sections of its specification.
//!
//! Source: Proxy-Wasm ABI 0.2.1, *Callbacks and Functions*.

/// A section: what a plugin may call, and what it may be called for.
pub struct Section {
    pub name: &'static str,
    functions: &'static [&'static str],
    callbacks: &'static [&'static str],
    /// What this gateway does with it, where that is not what a reader of the specification expects.
    pub note: Option<&'static str>,
}

/// Where names go that the specification does not have.
pub const OTHER: &str = "of its language";

pub const SECTIONS: &[Section] = &[
    Section {
        callbacks: &[
            "proxy_abi_version_0_1_0",
            "proxy_abi_version_0_2_0",
            "proxy_abi_version_0_2_1",
            "_initialize",
            "main",
            "_start",
            "memory",
            "proxy_on_memory_allocate",
            "malloc",
        ],
        ..section("integration")
    },
    Section {
        functions: &["proxy_done", "proxy_set_effective_context"],
        callbacks: &["proxy_on_context_create", "proxy_on_done", "proxy_on_log", "proxy_on_delete"],
        ..section("contexts")
    },
    Section { callbacks: &["proxy_on_vm_start", "proxy_on_configure"], ..section("configuration") },
    Section { functions: &["proxy_log", "proxy_get_log_level"], ..section("log") },
    Section {
        functions: &["proxy_get_current_time_nanoseconds", "proxy_set_tick_period_milliseconds"],
        callbacks: &["proxy_on_tick"],
        ..section("time")
    },
    Section {
        functions: &["proxy_get_buffer_bytes", "proxy_set_buffer_bytes", "proxy_get_buffer_status"],
        ..section("buffers")
    },
    Section {
        functions: &[
            "proxy_get_header_map_size",
            "proxy_get_header_map_pairs",
            "proxy_set_header_map_pairs",
            "proxy_get_header_map_value",
            "proxy_add_header_map_value",
            "proxy_replace_header_map_value",
            "proxy_remove_header_map_value",
        ],
        ..section("fields")
    },
    Section {
        functions: &["proxy_continue_stream", "proxy_close_stream", "proxy_get_status", "proxy_send_local_response"],
        callbacks: &[
            "proxy_on_request_headers",
            "proxy_on_request_body",
            "proxy_on_request_trailers",
            "proxy_on_response_headers",
            "proxy_on_response_body",
            "proxy_on_response_trailers",
        ],
        ..section("HTTP")
    },
    Section {
        callbacks: &[
            "proxy_on_new_connection",
            "proxy_on_downstream_data",
            "proxy_on_downstream_connection_close",
            "proxy_on_upstream_data",
            "proxy_on_upstream_connection_close",
        ],
        note: Some("never called: the gateway speaks HTTP"),
        ..section("TCP")
    },
    Section { functions: &["proxy_http_call"], callbacks: &["proxy_on_http_call_response"], ..section("HTTP calls") },
    Section {
        functions: &[
            "proxy_grpc_call",
            "proxy_grpc_stream",
            "proxy_grpc_send",
            "proxy_grpc_cancel",
            "proxy_grpc_close",
        ],
        callbacks: &[
            "proxy_on_grpc_receive_initial_metadata",
            "proxy_on_grpc_receive",
            "proxy_on_grpc_receive_trailing_metadata",
            "proxy_on_grpc_close",
        ],
        note: Some("refused: there are no upstreams for gRPC calls"),
        ..section("gRPC calls")
    },
    Section { functions: &["proxy_set_shared_data", "proxy_get_shared_data"], ..section("shared data") },
    Section {
        functions: &[
            "proxy_register_shared_queue",
            "proxy_resolve_shared_queue",
            "proxy_enqueue_shared_queue",
            "proxy_dequeue_shared_queue",
        ],
        callbacks: &["proxy_on_queue_ready"],
        ..section("queues")
    },
    Section {
        functions: &["proxy_define_metric", "proxy_record_metric", "proxy_increment_metric", "proxy_get_metric"],
        ..section("metrics")
    },
    Section { functions: &["proxy_get_property", "proxy_set_property"], ..section("properties") },
    Section {
        functions: &["proxy_call_foreign_function"],
        callbacks: &["proxy_on_foreign_function"],
        note: Some("refused: there are no foreign functions"),
        ..section("foreign")
    },
];

const fn section(name: &'static str) -> Section {
    Section { name, functions: &[], callbacks: &[], note: None }
}

/// Names under the section that each belongs to, in the order of the specification.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    pub name: &'static str,
    pub note: Option<&'static str>,
    pub names: Vec<String>,
}

/// Imports, as `env.proxy_log`.
pub fn of_imports(imports: &[String]) -> Vec<Group> {
    let plain = |name: &String| name.strip_prefix("env.").unwrap_or(name).to_owned();
    let mut rest: Vec<String> = imports.iter().map(plain).collect();
    let mut groups = known(&mut rest, |section| section.functions);
    let (wasi, other) = rest.into_iter().partition(|name| name.starts_with("wasi_"));
    let bare = |name: String| name.split_once('.').map_or(name.clone(), |(_, bare)| bare.to_owned());
    groups.push(Group { name: "WASI", note: None, names: Vec::<String>::into_iter(wasi).map(bare).collect() });
    groups.push(Group { name: OTHER, note: None, names: other });
    groups.retain(|group| !group.names.is_empty());
    groups
}

pub fn of_exports(exports: &[String]) -> Vec<Group> {
    let mut rest = exports.to_vec();
    let mut groups = known(&mut rest, |section| section.callbacks);
    groups.push(Group { name: OTHER, note: None, names: rest });
    groups.retain(|group| !group.names.is_empty());
    groups
}

/// Takes out of `rest` what sections have.
fn known(rest: &mut Vec<String>, of: impl Fn(&Section) -> &'static [&'static str]) -> Vec<Group> {
    let mut groups = Vec::new();
    for section in SECTIONS {
        let names: Vec<String> = rest.extract_if(.., |name| of(section).contains(&name.as_str())).collect();
        groups.push(Group { name: section.name, note: section.note, names });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_under_their_section_and_none_is_lost() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let imports = names(&["env.emscripten_x", "env.proxy_log", "wasi_snapshot_preview1.fd_write"]);
        let groups: Vec<_> = of_imports(&imports).into_iter().map(|group| (group.name, group.names)).collect();
        let expected =
            [("log", names(&["proxy_log"])), ("WASI", names(&["fd_write"])), (OTHER, names(&["emscripten_x"]))];
        assert_eq!(groups, expected);
        let groups = of_exports(&names(&["__heap_base", "memory", "proxy_on_new_connection"]));
        let found: Vec<_> = groups.iter().map(|group| (group.name, group.note.is_some())).collect();
        assert_eq!(found, [("integration", false), ("TCP", true), (OTHER, false)]);
    }

    #[test]
    fn a_name_stands_in_one_section() {
        let mut names: Vec<_> =
            SECTIONS.iter().flat_map(|section| section.functions.iter().chain(section.callbacks)).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
