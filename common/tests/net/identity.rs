//! Authorities and identities on disk: layout, modes, and every way in which a folder can be wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::*;
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, IDENTITY_DAYS, Validity};
use allhands_common::net::identity::{Identity, IdentityError, IdentityFiles};

fn year() -> Validity {
    Validity::days(SystemTime::now(), IDENTITY_DAYS)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A saved authority with one worker.
fn init(seed: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(seed);
    ca.save(dir.path()).unwrap();
    ca.issue(Role::Worker, "w-1", year(), dir.path().join("w-1")).unwrap().save().unwrap();
    dir
}

#[test]
fn the_layout_is_as_documented_and_secrets_are_private() {
    let dir = init(1);
    for (name, expected) in [
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("cluster-id", 0o644),
        ("w-1", 0o700),
        ("w-1/cert.pem", 0o644),
        ("w-1/key.pem", 0o600),
        ("w-1/ca.pem", 0o644),
        ("w-1/reset.key", 0o600),
    ] {
        assert_eq!(mode(&dir.path().join(name)), expected, "{name}");
    }
    let id = fs::read_to_string(dir.path().join("cluster-id")).unwrap();
    assert_eq!(id, format!("{}\n", ClusterId([1; 16])));
}

#[test]
fn a_folder_can_be_moved_to_another_machine_on_its_own() {
    let (dir, machine) = (init(1), tempfile::tempdir().unwrap());
    let moved = machine.path().join("identity");
    fs::rename(dir.path().join("w-1"), &moved).unwrap();
    drop(dir);
    let identity = Identity::load(&moved).unwrap();
    assert_eq!(identity.own().cluster, ClusterId([1; 16]));
    assert_eq!(identity.own().role, Role::Worker);
    assert_eq!(identity.own().to_string(), "worker w-1");
}

#[test]
fn a_loaded_authority_issues_identities_of_the_same_cluster() {
    let dir = init(1);
    let ca = Authority::load(dir.path()).unwrap();
    assert_eq!(ca.cluster(), ClusterId([1; 16]));
    let later = ca.issue(Role::Client, "bob", year(), dir.path().join("bob")).unwrap();
    later.save().unwrap();
    let bob = Identity::load(&dir.path().join("bob")).unwrap();
    let worker = Identity::load(&dir.path().join("w-1")).unwrap();
    assert_ne!(bob.own().serial, worker.own().serial);
    let ca_of = |name: &str| fs::read(dir.path().join(name).join("ca.pem")).unwrap();
    assert_eq!(ca_of("bob"), ca_of("w-1"));
}

#[test]
fn nothing_is_overwritten() {
    let dir = init(1);
    let error = authority(2).save(dir.path()).unwrap_err();
    assert!(chain(&error).contains("ca.key cannot be written"), "{}", chain(&error));
    let again = authority(1).issue(Role::Worker, "w-1", year(), dir.path().join("w-1")).unwrap();
    assert!(again.save().is_err());
    assert!(Identity::load(&dir.path().join("w-1")).is_ok());
}

#[test]
fn names_that_are_no_names_are_refused() {
    let ca = authority(1);
    for name in ["", "Alice", "a/b", "..", "-a", "a b", "ä", &"x".repeat(64)] {
        let error = ca.issue(Role::Client, name, year(), name.into()).unwrap_err();
        assert!(error.to_string().contains("cannot name an identity"), "{name}: {error}");
    }
    assert!(ca.issue(Role::Client, &"x".repeat(63), year(), "x".into()).is_ok());
}

#[test]
fn a_missing_file_is_named() {
    for name in ["cert.pem", "key.pem", "ca.pem", "reset.key"] {
        let dir = init(1);
        fs::remove_file(dir.path().join("w-1").join(name)).unwrap();
        let error = Identity::load(&dir.path().join("w-1")).unwrap_err();
        assert!(matches!(error, IdentityError::Unreadable { .. }));
        assert!(error.to_string().contains(&format!("w-1/{name} cannot be read")), "{error}");
    }
}

#[test]
fn damaged_files_are_named() {
    for (name, content, expected) in [
        ("cert.pem", "", "cert.pem holds no certificate"),
        (
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cert.pem is not",
        ),
        ("key.pem", "nothing", "key.pem is not a PEM file"),
        ("ca.pem", "nothing", "ca.pem is not a PEM file"),
        ("reset.key", "short", "reset.key holds 5 bytes instead of 32"),
    ] {
        let dir = init(1);
        fs::write(dir.path().join("w-1").join(name), content).unwrap();
        let error = Identity::load(&dir.path().join("w-1")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_files_of_two_clusters_do_not_mix() {
    let (ours, theirs) =
        (files(&authority(1), Role::Worker, "w"), files(&authority(2), Role::Worker, "w"));
    let now = SystemTime::now();
    let mixed = IdentityFiles { ca_pem: theirs.ca_pem.clone(), ..ours.clone() };
    let error = Identity::verify(&mixed, now).unwrap_err();
    assert!(matches!(error, IdentityError::OtherAuthority { .. }), "{error:?}");
    let mixed = IdentityFiles { key_pem: theirs.key_pem, ..ours };
    let error = Identity::verify(&mixed, now).unwrap_err();
    assert!(matches!(error, IdentityError::OtherKey { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "w/key.pem is not the key of w/cert.pem; copy the identity's folder again"
    );
}

#[test]
fn dates_are_checked_when_loading() {
    let files = files(&authority(1), Role::Worker, "w");
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(Identity::verify(&files, now + day / 2).is_ok());
    let error = Identity::verify(&files, now + 2 * day).unwrap_err();
    assert!(error.to_string().starts_with("w/cert.pem expired on "), "{error}");
    let error = Identity::verify(&files, now - day).unwrap_err();
    assert!(error.to_string().ends_with("set this machine's clock"), "{error}");
    assert!(error.retry_can_help());
}

#[test]
fn an_identity_cannot_sign_for_others() {
    let ca = authority(1);
    let impostor = files(&ca, Role::Worker, "w");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), &impostor.cert_pem).unwrap();
    fs::write(dir.path().join("ca.key"), &impostor.key_pem).unwrap();
    fs::write(dir.path().join("cluster-id"), ca.cluster().to_string()).unwrap();
    let forged = Authority::load(dir.path())
        .and_then(|worker| worker.issue(Role::Admin, "me", year(), "me".into()))
        .unwrap();
    // With the true authority's certificate, and with the leaf and the worker's certificate as a chain.
    let true_ca = IdentityFiles { ca_pem: impostor.ca_pem.clone(), ..forged.clone() };
    assert!(Identity::verify(&true_ca, SystemTime::now()).is_err());
    let mut chained = true_ca;
    chained.cert_pem.extend_from_slice(&impostor.cert_pem);
    assert!(Identity::verify(&chained, SystemTime::now()).is_err());
}
