use std::time::UNIX_EPOCH;

use super::*;
use crate::identity::RoleSettings;
use crate::yaml::{Sources, decode, parse};

fn compiled(yaml: &str) -> Result<Certificates, Vec<String>> {
    let mut sources = Sources::new();
    let id = sources.add("test.yaml", yaml);
    let consumers: Vec<ConsumerSettings> = decode(&parse(&sources, id).unwrap()).unwrap();
    let viewer = Located::new("viewer".to_owned(), Place::UNKNOWN);
    let scopes = vec![Located::new("read:*".to_owned(), Place::UNKNOWN)];
    let settings = RoleSettings { scopes, ..RoleSettings::default() };
    let mut problems = Vec::new();
    let roles = Roles::compile(&[(&viewer, &settings)], &mut problems);
    let made = Certificates::compile(&consumers.iter().collect::<Vec<_>>(), &roles, &mut problems);
    if problems.is_empty() { Ok(made) } else { Err(problems.iter().map(|problem| sources.render(problem)).collect()) }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Valid from second 1000 to second 2000.
fn certificate(subject: &str, names: &[&str]) -> Arc<ClientCertificate> {
    Arc::new(ClientCertificate {
        subject: subject.into(),
        names: names.iter().map(|name| SubjectName::written(name)).collect(),
        sha256: format!("{:0>64}", subject.len() + names.len() * 7).into(),
        not_before: at(1000),
        not_after: at(2000),
    })
}

fn name(found: Result<Arc<Caller>, Reason>) -> Result<String, Reason> {
    found.map(|caller| caller.name.to_string())
}

const CONSUMERS: &str = "
- name: by-subject
  roles: [viewer]
  certificates: [{ subject: \"CN=svc-a,O=Acme\" }]
- name: by-san
  certificates: [{ san: \"spiffe://acme.test/svc-b\" }, { san: SVC-B.acme.test }, { san: b@acme.test }]
- name: by-fingerprint
  certificates: [{ sha256: \"AA:AA:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" }]
- name: off
  disabled: true
  certificates: [{ san: off.acme.test }]
";

#[test]
fn rates_of_the_consumer_are_those_of_its_certificates_too() {
    let known = compiled("[{ name: a, rates: [7/min], certificates: [{ san: a.test }] }]").unwrap();
    let caller = known.find(&certificate("", &["a.test"]), at(1500)).unwrap();
    let own = caller.rates.as_ref().unwrap().of("reads").unwrap();
    assert_eq!((own.rates.capacity_min(), own.is_of_key), (7.0, false), "or the bucket has others than for its keys");
}

#[test]
fn each_kind_is_found_and_one_character_off_is_not() {
    let known = compiled(CONSUMERS).unwrap();
    let find = |subject: &str, names: &[&str]| name(known.find(&certificate(subject, names), at(1500)));
    assert_eq!(find("CN=svc-a,O=Acme", &[]).unwrap(), "by-subject");
    for wrong in ["CN=svc-a,O=Acme2", "CN=svc-A,O=Acme", "CN=svc-a", "O=Acme,CN=svc-a", "CN=svc-a\\,O=Acme", ""] {
        assert_eq!(find(wrong, &[]), Err(Reason::Unknown), "{wrong}");
    }
    for right in ["spiffe://acme.test/svc-b", "svc-b.ACME.test", "b@acme.test"] {
        assert_eq!(find("CN=any", &["other.test", right]).unwrap(), "by-san", "{right}");
    }
    for wrong in
        ["spiffe://acme.test/svc-B", "spiffe://acme.test/svc-bb", "svc-b.acme.tes", "x.svc-b.acme.test", "B@acme.test"]
    {
        assert_eq!(find("CN=any", &[wrong]), Err(Reason::Unknown), "{wrong}");
    }
    let mut pinned = ClientCertificate::clone(&certificate("CN=any", &[]));
    pinned.sha256 = "a".repeat(64).into();
    assert_eq!(name(known.find(&Arc::new(pinned.clone()), at(1500))).unwrap(), "by-fingerprint");
    pinned.sha256 = format!("{}b", "a".repeat(63)).into();
    assert_eq!(name(known.find(&Arc::new(pinned), at(1500))), Err(Reason::Unknown));
    assert_eq!(find("CN=any", &["off.acme.test"]), Err(Reason::Disabled));
}

#[test]
fn a_dns_name_is_no_uri() {
    let known = compiled("- { name: a, certificates: [{ san: \"spiffe://acme.test/a\" }] }").unwrap();
    let mut odd = ClientCertificate::clone(&certificate("", &[]));
    odd.names = Box::new([SubjectName::Dns("spiffe://acme.test/a".into())]);
    assert_eq!(name(known.find(&Arc::new(odd), at(1500))), Err(Reason::Unknown));
}

#[test]
fn a_certificate_is_valid_to_the_end_of_its_last_second() {
    let known = compiled(CONSUMERS).unwrap();
    let made = certificate("CN=svc-a,O=Acme", &[]);
    let caller = known.find(&made, at(1000)).unwrap();
    assert_eq!(name(known.find(&made, at(999))), Err(Reason::NotYet));
    assert!(known.find(&made, at(2000)).is_ok());
    assert_eq!(name(known.find(&made, at(2001))), Err(Reason::Expired));
    assert_eq!(caller.expires, Some(at(2001)));
    assert!(caller.scopes.allow("read:tasks"), "a role brings its scopes");
    assert_eq!(caller.credential.kind(), "mtls");
}

#[test]
fn names_that_speak_for_two_decide_nothing_and_a_fingerprint_decides_alone() {
    let both = certificate("CN=svc-a,O=Acme", &["svc-b.acme.test"]);
    assert_eq!(name(compiled(CONSUMERS).unwrap().find(&both, at(1500))), Err(Reason::Unknown));
    let pinned = format!("{CONSUMERS}- {{ name: pinned, certificates: [{{ sha256: \"{}\" }}] }}\n", both.sha256);
    assert_eq!(name(compiled(&pinned).unwrap().find(&both, at(1500))).unwrap(), "pinned");
}

#[test]
fn another_configuration_may_not_know_it_any_more() {
    let made = certificate("CN=svc-a,O=Acme", &[]);
    let caller = compiled(CONSUMERS).unwrap().find(&made, at(1500)).unwrap();
    let still = |yaml: &str| compiled(yaml).unwrap().still_holds(&made, &caller, at(1600));
    assert_eq!(still(CONSUMERS), Ok(()));
    assert_eq!(still("[]"), Err(Reason::Unknown));
    assert_eq!(still(&CONSUMERS.replace("by-subject", "somebody-else")), Err(Reason::Unknown));
    assert_eq!(still(&CONSUMERS.replace("roles: [viewer]", "disabled: true")), Err(Reason::Disabled));
    let late = compiled(CONSUMERS).unwrap().still_holds(&made, &caller, at(2001));
    assert_eq!(late, Err(Reason::Expired));
}

#[test]
fn mistakes_are_told() {
    for (certificates, said) in [
        ("{ subject: \"/O=Acme/CN=svc-a\" }", "is not the form subjects are compared in"),
        ("{ subject: \"CN = svc-a, O = Acme\" }", "is not the form subjects are compared in"),
        ("{ subject: svc-a }", "is not the form subjects are compared in"),
        ("{ san: \"*.acme.test\" }", "compared as a whole"),
        ("{ san: \"\" }", "visible ASCII"),
        ("{ sha256: \"abc\" }", "64 hexadecimal digits"),
        ("{ san: a.test }, { san: A.test }", "is a certificate of consumer `a` already"),
    ] {
        let yaml = format!("- {{ name: a, certificates: [{certificates}] }}");
        let told = compiled(&yaml).err().unwrap_or_else(|| panic!("{certificates} is taken")).join("\n");
        assert!(told.contains(said), "{told}");
    }
    let twice = "- { name: a, certificates: [{ san: x.test }] }\n- { name: b, certificates: [{ san: x.test }] }";
    assert!(compiled(twice).err().unwrap()[0].contains("consumer `a` already"));
}
