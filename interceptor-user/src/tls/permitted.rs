//! For whom the local authority may issue certificates: its name constraints.
//!
//! Whoever has the authority's key can be any service to whoever trusts it. With
//! `ca: { permitted: [...] }` its certificate says for which names and addresses it
//! counts, and clients hold it to that. What is not listed cannot be opened then.
//!
//! Spec: RFC 5280, section 4.2.1.10. A name permits itself and everything below it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints, SanType};
use rustls::pki_types::CertificateDer;

/// Names and networks; none of either for no constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    names: Vec<String>,
    networks: Vec<IpNet>,
}

impl Permitted {
    /// Adds a name or a network as it is written; whether it is one.
    pub fn add(&mut self, text: &str) -> bool {
        if let Ok(network) = text.parse::<IpNet>() {
            self.networks.push(network.trunc());
        } else if let Ok(address) = text.parse::<IpAddr>() {
            self.networks.push(address.into());
        } else {
            let name = text.strip_prefix("*.").or(text.strip_prefix('.'));
            let name = name.unwrap_or(text).to_ascii_lowercase();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let mut labels = name.split('.');
            if !labels.all(|label| !label.is_empty() && label.chars().all(plain)) {
                return false;
            }
            self.names.push(name);
        }
        self.names.sort();
        self.names.dedup();
        self.networks.sort();
        self.networks.dedup();
        true
    }

    /// What is written as [`Self::entries`] says; `None` where it is not.
    pub(crate) fn from_entries(entries: &[String]) -> Option<Self> {
        let mut permitted = Self::default();
        let fine = entries.iter().all(|one| permitted.add(one));
        fine.then_some(permitted)
    }

    /// Names and networks, one by one.
    pub(crate) fn entries(&self) -> Vec<String> {
        let names = self.names.iter().cloned();
        names
            .chain(self.networks.iter().map(IpNet::to_string))
            .collect()
    }

    /// Whether everything is.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.names.is_empty() && self.networks.is_empty()
    }

    /// Whether a certificate may be for this.
    pub(super) fn allows(&self, name: &SanType) -> bool {
        if self.is_any() {
            return true;
        }
        match name {
            SanType::IpAddress(address) => self.networks.iter().any(|one| one.contains(address)),
            SanType::DnsName(name) => {
                let name = name.as_str().trim_end_matches('.').to_ascii_lowercase();
                self.names.iter().any(|one| {
                    name.strip_suffix(one.as_str())
                        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
                })
            }
            _ => false,
        }
    }

    /// As it stands in the authority's certificate. A kind of which nothing is listed
    /// is excluded whole, or it would be free.
    pub(super) fn constraints(&self) -> Option<NameConstraints> {
        if self.is_any() {
            return None;
        }
        let names = self.names.iter().cloned().map(GeneralSubtree::DnsName);
        let networks = self.networks.iter().map(|one| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(one.addr(), one.prefix_len()))
        });
        let mut excluded = Vec::new();
        if self.networks.is_empty() {
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(
                [0; 4], 0,
            )));
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
                [0; 16], 0,
            )));
        }
        if self.names.is_empty() {
            excluded.push(GeneralSubtree::DnsName(String::new()));
        }
        Some(NameConstraints {
            permitted_subtrees: names.chain(networks).collect(),
            excluded_subtrees: excluded,
        })
    }

    /// What an authority's certificate says; `None` where that cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut permitted = Self::default();
        let Some(constraints) = parsed.name_constraints().ok()? else {
            return Some(permitted);
        };
        for subtree in constraints.value.permitted_subtrees.iter().flatten() {
            let fine = match &subtree.base {
                GeneralName::DNSName(name) => permitted.add(name),
                GeneralName::IPAddress(bytes) => {
                    network(bytes).is_some_and(|one| permitted.add(&one.to_string()))
                }
                _ => false,
            };
            if !fine {
                return None;
            }
        }
        Some(permitted)
    }
}

/// An address and its mask, one behind the other.
fn network(bytes: &[u8]) -> Option<IpNet> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    let (address, mask): (IpAddr, IpAddr) = match bytes.len() {
        8 => (
            <[u8; 4]>::try_from(address).ok()?.into(),
            <[u8; 4]>::try_from(mask).ok()?.into(),
        ),
        32 => (
            <[u8; 16]>::try_from(address).ok()?.into(),
            <[u8; 16]>::try_from(mask).ok()?.into(),
        ),
        _ => return None,
    };
    IpNet::with_netmask(address, mask).ok()
}

impl fmt::Display for Permitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("everything");
        }
        f.write_str(&self.entries().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(list: &[&str]) -> Permitted {
        let mut permitted = Permitted::default();
        assert!(list.iter().all(|one| permitted.add(one)), "{list:?}");
        permitted
    }

    #[test]
    fn a_name_permits_what_is_below_it_and_nothing_that_only_ends_alike() {
        let only = permitted(&[".internal", "10.0.0.0/8"]);
        let name = |text: &str| SanType::DnsName(text.try_into().unwrap());
        assert!(only.allows(&name("a.internal")) && only.allows(&name("B.Internal")));
        assert!(!only.allows(&name("notinternal")) && !only.allows(&name("internal.example")));
        assert!(only.allows(&SanType::IpAddress([10, 1, 2, 3].into())));
        assert!(!only.allows(&SanType::IpAddress([11, 1, 2, 3].into())));
        assert!(permitted(&[]).allows(&name("anything.example")));
    }

    #[test]
    fn what_is_neither_a_name_nor_a_network_is_none() {
        for text in ["", "a..b", "10.0.0.0/40", "a b", "*"] {
            assert!(!Permitted::default().add(text), "{text}");
        }
    }
}
