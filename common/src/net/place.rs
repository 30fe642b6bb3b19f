//! Where a cluster is: addresses as people write them, and what the environment and a cluster's directory
//! call them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

/// Names the coordinators: `HOST:PORT,HOST:PORT,…`, or a cluster's directory.
pub const CLUSTER_VARIABLE: &str = "ALLHANDS_CLUSTER";
/// Names the folder of an identity.
pub const IDENTITY_VARIABLE: &str = "ALLHANDS_IDENTITY";
/// The file with the coordinators' addresses in a cluster's directory.
pub const ADDRESSES_FILE: &str = "cluster";
/// A program's identity in that directory, and its name.
pub const CLIENT: &str = "client";
/// The operator's identity in that directory, and its name.
pub const ADMIN: &str = "admin";

/// A process that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As it was written.
    pub name: String,
    /// What that means: `localhost` is often two addresses, and a process may listen on either.
    pub addresses: Vec<SocketAddr>,
}

/// What is written is no address, or that of nobody.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{name:?} is not an address: HOST:PORT is expected, as in c1:7100 or [::1]:7100")]
    Form { name: String },
    #[error("{name:?} is not known to this machine")]
    Unknown { name: String, source: io::Error },
    #[error("no address is given: HOST:PORT,HOST:PORT,… is expected")]
    Nobody,
}

/// The places of a list, `HOST:PORT,HOST:PORT,…`. Asks the system for the addresses of names, which may
/// take its time.
///
/// # Errors
/// The list is empty, or something in it is no address.
pub fn resolve(list: &str) -> Result<Vec<Place>, PlaceError> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let places = names.map(|name| {
        check(name)?;
        let unknown = |source| PlaceError::Unknown { name: name.to_owned(), source };
        let addresses: Vec<SocketAddr> = name.to_socket_addrs().map_err(unknown)?.collect();
        if addresses.is_empty() {
            return Err(unknown(io::ErrorKind::NotFound.into()));
        }
        Ok(Place { name: name.to_owned(), addresses })
    });
    let places = places.collect::<Result<Vec<_>, _>>()?;
    if places.is_empty() { Err(PlaceError::Nobody) } else { Ok(places) }
}

/// Host and port of `HOST:PORT`. Asks nobody.
///
/// # Errors
/// It has not that form, or a port that nobody can listen on.
pub fn check(name: &str) -> Result<(&str, u16), PlaceError> {
    let wrong = || PlaceError::Form { name: name.to_owned() };
    let (host, port) = name.rsplit_once(':').ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    match port.parse() {
        Ok(port @ 1..) if is_host => Ok((host, port)),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

impl Place {
    /// The address by which a socket that is bound to `own` reaches it, if there is one.
    pub fn reached_from(&self, own: IpAddr) -> Option<SocketAddr> {
        // A socket of IPv6 reaches both families.
        self.addresses.iter().copied().find(|address| own.is_ipv6() || address.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_resolved_or_what_is_wrong_is_named() {
        let found = resolve("127.0.0.1:7001, [::1]:7002,").unwrap();
        assert_eq!(found[0].name, "127.0.0.1:7001");
        assert_eq!(found[0].addresses, [([127, 0, 0, 1], 7001).into()]);
        assert_eq!(found[1].addresses, [(Ipv6Addr::LOCALHOST, 7002).into()]);
        assert!(matches!(resolve(" , "), Err(PlaceError::Nobody)));
        let error = resolve("127.0.0.1:1,no-such-host.invalid:1").unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }

    #[test]
    fn what_nobody_can_listen_on_is_no_address() {
        for right in ["c1:7100", "10.0.0.1:1", "[::1]:65535", "a-b.c_d:7"] {
            assert!(check(right).is_ok(), "{right}");
        }
        for wrong in ["", "c1", "c1:", ":7100", "c1:0", "c1:99999", "a b:1", "::1:7100", "[x]:1"] {
            let error = check(wrong).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{wrong:?}")) && error.contains("HOST:PORT"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_socket_of_ipv4_reaches_addresses_of_ipv4_alone() {
        let (v4, v6) = (([127, 0, 0, 1], 1).into(), (Ipv6Addr::LOCALHOST, 1).into());
        let both = Place { name: "localhost:1".into(), addresses: vec![v6, v4] };
        assert_eq!(both.reached_from([0, 0, 0, 0].into()), Some(v4));
        assert_eq!(both.reached_from(Ipv6Addr::UNSPECIFIED.into()), Some(v6));
        let one = Place { name: "[::1]:1".into(), addresses: vec![v6] };
        assert_eq!(one.reached_from([0, 0, 0, 0].into()), None);
    }
}
