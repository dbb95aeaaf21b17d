use super::*;

fn field_name(name: &str) -> Result<HeaderName, Vec<String>> {
    let mut compiler = Compiler::default();
    let known = compiler.field_name(name, Place::UNKNOWN);
    testing::outcome(known, compiler)
}

#[test]
fn fields_that_frame_a_message_or_belong_to_a_connection_are_the_gateways() {
    for name in ["Content-Length", "transfer-encoding", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive"] {
        assert!(field_name(name).unwrap_err()[0].contains("the gateway writes it"), "{name}");
    }
    for name in ["Proxy-Authorization", "proxy-connection", "Host"] {
        assert!(field_name(name).is_err(), "{name}");
    }
    assert!(field_name("a b").unwrap_err()[0].contains("`a b` is no field name"));
    assert!(field_name("").is_err());
    assert_eq!(field_name("X-Proxy-Name").unwrap(), "x-proxy-name");
}
