//! What a cgroup's path says of the service or container that it belongs to.
//!
//! Systemd names its cgroups by unit; container engines put a container's id, 64 hex
//! digits, into a cgroup's name: `docker-ID.scope`, `cri-containerd-ID.scope`,
//! `libpod-ID.scope`, `/docker/ID`. Pure: no I/O.

/// The innermost systemd unit in a cgroup's path: a service, or a scope that is not a
/// container's.
pub(super) fn unit(cgroup: &str) -> Option<String> {
    cgroup
        .rsplit('/')
        .find(|part| {
            part.ends_with(".service") || (part.ends_with(".scope") && container(part).is_none())
        })
        .map(str::to_owned)
}

/// The innermost container's id in a cgroup's path.
pub(super) fn container(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let id = name.rsplit('-').next()?;
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (id.len() == 64 && id.chars().all(hex)).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_is_named() {
        let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service";
        assert_eq!(unit(path).as_deref(), Some("agent.service"));
        assert_eq!(
            unit("/user.slice/user-1000.slice/session-3.scope").as_deref(),
            Some("session-3.scope")
        );
        assert_eq!(unit("/interceptor/psql-0199"), None);
    }

    #[test]
    fn a_container_is_named_by_its_id_however_the_engine_writes_it() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(container(&path), Some(id.clone()), "{path}");
            assert_eq!(unit(&path), None, "{path}");
        }
        assert_eq!(container("/system.slice/docker.service"), None);
        assert_eq!(container(&format!("/docker/{}", "g".repeat(64))), None);
    }
}
