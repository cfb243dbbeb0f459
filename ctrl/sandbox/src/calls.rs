//! System calls, by seccomp: those that a running appliance uses. Others fail with EPERM, as they do under its unit.
//!
//! One filter serves all threads, the workers' included. A thread that somebody has taken over writes into the memory of the others,
//! so that filters of their own would keep them from little; and the kernel remembers which calls a filter allows whatever
//! their arguments, so that a worker's `sendto` costs it one look at a bit map.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// What stays beside that which every appliance uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `bpf`, for ports that load programs into the kernel.
    pub bpf: bool,
}

/// Allowed whatever their arguments.
#[rustfmt::skip]
const PLAIN: &[i64] = &[
    // Descriptors.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_preadv,
    libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl, libc::SYS_ioctl, libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pselect6,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime, libc::SYS_signalfd4, libc::SYS_memfd_create,
    // Files.
    libc::SYS_openat, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_flock,
    libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_ftruncate, libc::SYS_truncate, libc::SYS_fallocate,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_unlinkat, libc::SYS_mkdirat, libc::SYS_fchmod, libc::SYS_fchmodat,
    libc::SYS_umask, libc::SYS_utimensat, libc::SYS_copy_file_range, libc::SYS_inotify_init1, libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Sockets; `socket` is below.
    libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect,
    libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_sendto, libc::SYS_recvfrom,
    libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_shutdown,
    // Memory; `mmap` and `mprotect` are below.
    libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_mincore, libc::SYS_msync, libc::SYS_mlock,
    libc::SYS_mlock2, libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall, libc::SYS_mbind, libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy, libc::SYS_membarrier,
    // Threads; `clone` and signals to others are below.
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_set_tid_address, libc::SYS_rseq,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_setscheduler, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_getcpu, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_clone3,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigpending, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    // Time.
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday,
    // What it is and has.
    libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getegid, libc::SYS_getgroups, libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_capget, libc::SYS_uname,
    libc::SYS_sysinfo, libc::SYS_getrusage, libc::SYS_times, libc::SYS_getrlimit, libc::SYS_prlimit64, libc::SYS_getrandom,
];

/// The older forms, which x86-64 has beside those above and the C library uses still.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[i64] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_rename,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_chmod, libc::SYS_poll, libc::SYS_select, libc::SYS_pipe,
    libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_inotify_init, libc::SYS_time,
    libc::SYS_getdents,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Address families of sockets: those of the API, flow logs, memif, links and packet sockets.
const FAMILIES: [i32; 5] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];
/// AF_XDP, where programs are loaded.
const AF_XDP: i32 = 44;

/// `prctl`: names of threads and of memory.
const NAMES: [i32; 3] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];

fn is(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    when(argument, SeccompCmpOp::Eq, value)
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?])
}

impl Calls {
    /// Restricts every thread to them.
    pub(crate) fn restrict(&self) -> Result<String, String> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)
            .map_err(|_| format!("no filter is made for {}", std::env::consts::ARCH))?;
        let told = |error: seccompiler::BackendError| error.to_string();
        let (rules, clone3) = (self.rules().map_err(told)?, [(libc::SYS_clone3, Vec::new())]);
        let count = rules.len();
        let compile = |rules, rest, listed| -> Result<BpfProgram, _> {
            SeccompFilter::new(rules, rest, listed, arch)?.try_into()
        };
        let (refuse, missing) =
            (SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Errno(libc::ENOSYS as u32));
        let allowed = compile(rules, refuse, SeccompAction::Allow).map_err(told)?;
        // Its flags lie in memory, where no filter can look. The C library goes on with `clone` where there is no such call.
        let no_clone3 = compile(clone3.into(), SeccompAction::Allow, missing).map_err(told)?;
        for program in [&no_clone3, &allowed] {
            apply_filter_all_threads(program).map_err(|error| error.to_string())?;
        }
        Ok(format!("{count} system calls"))
    }

    fn rules(&self) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
        // An empty list of rules: whatever the arguments.
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            PLAIN.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
        let mut families: Vec<i32> = FAMILIES.to_vec();
        if self.bpf {
            families.push(AF_XDP);
            rules.insert(libc::SYS_bpf, Vec::new());
        }
        let one_of = |numbers: &[i32]| {
            numbers.iter().map(|number| is(0, *number as u64)).collect::<Result<Vec<_>, _>>()
        };
        rules.insert(libc::SYS_socket, one_of(&families)?);
        rules.insert(libc::SYS_prctl, one_of(&NAMES)?);
        // Nothing that is written becomes code: no memory is made executable any more.
        let not_executable = || when(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
        rules.insert(libc::SYS_mmap, vec![not_executable()?]);
        rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
        // Threads are started, no processes; and signals are for ourselves, an abort included.
        let thread = libc::CLONE_THREAD as u64;
        rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_kill, vec![is(0, own)?]);
        rules.insert(libc::SYS_tgkill, vec![is(0, own)?]);
        Ok(rules)
    }
}
