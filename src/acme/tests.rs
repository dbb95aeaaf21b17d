use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::clock;

/// A key and a certificate for these names, valid from the beginning of one year to that of another.
fn pem(names: &[&str], from: i32, until: i32) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    (key.serialize_pem() + &params.self_signed(&key).unwrap().pem()).into_bytes()
}

fn domains(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn read(pem: &[u8], names: &[&str]) -> Result<Held, String> {
    Held::read(pem, &domains(names), clock::wall())
}

#[test]
fn a_certificate_that_would_not_work_is_not_used() {
    let good = pem(&["a.test", "B.test"], 2020, 4000);
    assert!(read(&good, &["a.test", "b.test"]).is_ok());
    let begins = good.windows(13).position(|word| word == b"-----BEGIN CE").unwrap();
    let other = pem(&["a.test"], 2020, 4000);
    let key_ends = other.windows(13).position(|word| word == b"-----BEGIN CE").unwrap();
    let mixed = [&other[..key_ends], &good[begins..]].concat();
    for (bytes, names, said) in [
        (&b""[..], &["a.test"][..], "no certificate"),
        (&good[..begins], &["a.test"], "no certificate"),
        (&good[begins..], &["a.test"], "no private key"),
        (&good[..good.len() - 40], &["a.test"], "no certificate"),
        (&mixed, &["a.test"], "do not fit"),
        (&good, &["a.test", "c.test"], "not for c.test"),
        (&pem(&["a.test"], 2020, 2021), &["a.test"], "expired"),
    ] {
        let why = read(bytes, names).err().unwrap_or_default();
        assert!(why.contains(said), "{said}: {why}");
    }
}

#[test]
fn it_is_renewed_in_time_and_not_before_half_of_its_life() {
    let held = read(&pem(&["a.test"], 2020, 3020), &["a.test"]).unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(held.renew_at(30 * day), held.not_after - 30 * day);
    let life = held.not_after.duration_since(held.not_before).unwrap();
    assert_eq!(held.renew_at(life), held.not_before + life / 2);
}

#[test]
fn what_is_known_of_a_certificate_outlives_a_snapshot() {
    let acme = Acme::default();
    let get = |directory, names: &[&str], method| acme.managed(directory, &domains(names), method);
    let first = get("https://ca.test", &["a.test", "b.test"], Method::Http01);
    assert!(Arc::ptr_eq(&first, &get("https://ca.test", &["a.test", "b.test"], Method::Http01)));
    for other in [
        get("https://other.test", &["a.test", "b.test"], Method::Http01),
        get("https://ca.test", &["a.test"], Method::Http01),
        get("https://ca.test", &["a.test", "b.test"], Method::TlsAlpn01),
    ] {
        assert!(!Arc::ptr_eq(&first, &other));
    }
    assert_eq!(first.stem, stem("https://ca.test", &domains(&["a.test", "b.test"])));
    assert!(first.stem.starts_with("a.test-"));
    drop(first);
    let again = get("https://ca.test", &["c.test"], Method::Http01);
    assert_eq!(acme.known.lock().unwrap().len(), 1, "what nobody wants is forgotten");
    drop(again);
}
