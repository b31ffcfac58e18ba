//! Memory that this process may have: what the system says is free, cut by each limit on the process, its control groups
//! and its batch job.

use std::fs;
use std::path::Path;

use crate::available_memory::{Available, Limit, LimitKind, MemorySource};
use crate::threads::soft_limit;

/// What can be allocated without swapping; nothing where the system does not say.
pub fn available() -> Option<Available> {
    available_under(Path::new("/"), &|name| std::env::var(name).ok())
}

/// Bytes of memory of the machine.
pub(super) fn total_bytes() -> Option<u64> {
    kib(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

fn available_under(root: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Option<Available> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let machine = Available { bytes: kib(&meminfo, "MemAvailable:")?, source: MemorySource::Machine };
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let limits = fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
    let process = [("Max address space", "VmSize:", 'v'), ("Max data size", "VmData:", 'd')];
    let process = process.iter().filter_map(|(name, used, letter)| {
        Some(below_limit(soft_limit(&limits, name)?, kib(&status, used)?, LimitKind::Process(*letter)))
    });
    let all = process.chain(groups(root)).chain(slurm(&status, variable));
    Some(all.fold(machine, |least, limit| least.min(Some(limit))))
}

fn below_limit(limit: u64, used: u64, kind: LimitKind) -> Available {
    Available { bytes: limit.saturating_sub(used), source: MemorySource::Limit(Limit { bytes: limit, kind }) }
}

/// The limits of the control groups that the process is in, each with those around it: version 2, then version 1.
fn groups(root: &Path) -> Vec<Available> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = vec![];
    for line in text.lines() {
        // `0::/path`, or `4:memory:/path`.
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, files) = match (number, names.split(',').any(|name| name == "memory")) {
            ("0", _) => ("sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file "]),
            (_, true) => (
                "sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "],
            ),
            (_, false) => continue,
        };
        let mount = root.join(mount);
        // In a container, the path may be one of the host's, and the group itself is what is mounted.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let folder = mount.join(group);
            let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
            let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
            let (Some(limit), Some(used)) = (number(files[0]), number(files[1])) else { continue };
            // Version 1 writes no limit as a number that no machine has.
            if limit >= 1 << 60 {
                continue;
            }
            // Files that nobody has read lately leave the memory when it is needed.
            let stat = read("memory.stat").unwrap_or_default();
            let cached =
                stat.lines().find_map(|line| line.strip_prefix(files[2])?.trim().parse::<u64>().ok());
            let kind = match path.contains("slurm") {
                true => LimitKind::Slurm,
                false => LimitKind::Group(format!("/{}", group.display())),
            };
            found.push(below_limit(limit, used.saturating_sub(cached.unwrap_or(0)), kind));
        }
    }
    found
}

/// What a Slurm job may use on this node, where no control group holds it to that: Slurm then ends what uses more.
fn slurm(status: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<Available> {
    let number = |name: &str| variable(name)?.trim().parse::<u64>().ok().filter(|n| *n > 0);
    let cpus = || number("SLURM_CPUS_ON_NODE").unwrap_or(1);
    let megabytes =
        number("SLURM_MEM_PER_NODE").or_else(|| Some(number("SLURM_MEM_PER_CPU")?.saturating_mul(cpus())))?;
    Some(below_limit(megabytes.saturating_mul(1 << 20), kib(status, "VmRSS:").unwrap_or(0), LimitKind::Slurm))
}

/// The value of a `key:  123 kB` line, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A made-up system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let status = "VmSize:\t  204800 kB\nVmRSS:\t   51200 kB\nVmData:\t  102400 kB\n";
        let basic = [
            ("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable:  4194304 kB\n"),
            ("proc/self/status", status),
        ];
        for (path, text) in basic.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    fn available_in(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Available {
        let root = system(files);
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        available_under(root.path(), &variable).expect("a number")
    }

    fn limit(bytes: u64, limit: u64, kind: LimitKind) -> Available {
        Available { bytes: bytes * MIB, source: MemorySource::Limit(Limit { bytes: limit * MIB, kind }) }
    }

    #[test]
    fn without_limits_it_is_the_machines() {
        let limits = "Max data size             unlimited            unlimited            bytes\n\
                      Max address space         unlimited            unlimited            bytes\n";
        let none = [("proc/self/limits", limits)];
        assert_eq!(available_in(&none, &[]), Available { bytes: 4096 * MIB, source: MemorySource::Machine });
    }

    #[test]
    fn limits_of_the_process_count_what_it_has() {
        let limits = "Max data size             1048576000           unlimited            bytes\n\
                      Max address space         524288000            unlimited            bytes\n";
        let process = [("proc/self/limits", limits)];
        assert_eq!(available_in(&process, &[]), limit(300, 500, LimitKind::Process('v')));
        let data = "Max data size             209715200            unlimited            bytes\n";
        assert_eq!(
            available_in(&[("proc/self/limits", data)], &[]),
            limit(100, 200, LimitKind::Process('d'))
        );
    }

    #[test]
    fn the_tightest_control_group_counts_and_its_cache_does_not() {
        let second = [
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/outer/memory.current", "734003200\n"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 104857600\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "1\n"),
        ];
        assert_eq!(available_in(&second, &[]), limit(424, 1024, LimitKind::Group("/outer".into())));
        let first = [
            ("proc/self/cgroup", "9:cpu:/a\n4:memory:/not/mounted/here\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "268435456\n"),
        ];
        assert_eq!(available_in(&first, &[]), limit(256, 512, LimitKind::Group("/".into())));
        let unlimited = [
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "268435456\n"),
        ];
        assert_eq!(available_in(&unlimited, &[]).source, MemorySource::Machine);
    }

    #[test]
    fn a_slurm_job_has_its_memory_by_group_or_by_variable() {
        let group = [
            ("proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0\n"),
            ("sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.current", "0\n"),
        ];
        assert_eq!(available_in(&group, &[]), limit(1024, 1024, LimitKind::Slurm));
        assert_eq!(available_in(&[], &[("SLURM_MEM_PER_NODE", "2000")]), limit(1950, 2000, LimitKind::Slurm));
        let per_cpu = [("SLURM_MEM_PER_CPU", "500"), ("SLURM_CPUS_ON_NODE", "4")];
        assert_eq!(available_in(&[], &per_cpu), limit(1950, 2000, LimitKind::Slurm));
        assert_eq!(available_in(&[], &[("SLURM_MEM_PER_NODE", "0")]).source, MemorySource::Machine);
    }

    #[test]
    fn this_system_says_something() {
        let Some(available) = available() else {
            eprintln!("skipped: the system does not say");
            return;
        };
        assert!(available.bytes > 0 && available.bytes <= total_bytes().expect("a number"), "{available:?}");
    }
}
