//! The operating system's randomness and wall clock, taken over while a simulation runs in a thread.
//!
//! ring, quinn, tokio and the standard library's hash maps ask libc for randomness; inside a simulation they get the seed's.
//! ring's getrandom calls `syscall` itself, newer ones look `getrandom` up: both are here. Every other call goes through.
//! Outside a simulation nothing changes. The only unsafe code of the project.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_uint, c_void};

thread_local! {
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What the wall clock shows inside a simulation: 2026-01-01. Nodes have clocks of their own; nobody should ask for this one.
pub const EPOCH_SECONDS: i64 = 1_767_225_600;

/// What the monotonic clock shows inside a simulation, where nobody counts time by it.
const MONOTONIC_SECONDS: i64 = 1_000_000;

/// While it lives, this thread's randomness follows the seed.
pub struct Seeded(());

impl Seeded {
    /// Begins. The thread should be a new one: the keys of hash maps are drawn once for each thread.
    #[must_use]
    pub fn begin(seed: u64) -> Self {
        RANDOM.set(Some(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1));
        Self(())
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        RANDOM.set(None);
    }
}

fn seeded(buffer: &mut [u8]) -> bool {
    // A thread that is ending has no simulation any more.
    let Ok(Some(mut state)) = RANDOM.try_with(Cell::get) else {
        return false;
    };
    for chunk in buffer.chunks_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    RANDOM.set(Some(state));
    true
}

#[cfg(target_arch = "x86_64")]
unsafe fn raw(number: c_long, a: [c_long; 6]) -> c_long {
    let result: c_long;
    // SAFETY: the kernel's calling convention; the caller answers for the arguments.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn raw(number: c_long, a: [c_long; 6]) -> c_long {
    let result: c_long;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack)
        );
    }
    result
}

/// As libc gives it: -1 and errno for an error.
unsafe fn call(number: c_long, a: [c_long; 6]) -> c_long {
    // SAFETY: the caller's.
    let result = unsafe { raw(number, a) };
    if (-4095..0).contains(&result) {
        // SAFETY: libc's own place for it.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result
}

/// # Safety
/// As `getrandom(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !buffer.is_null() {
        // SAFETY: the caller gives a buffer of this length.
        let slice = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        if seeded(slice) {
            return length as isize;
        }
    }
    // SAFETY: passed on as it came.
    unsafe {
        call(
            libc::SYS_getrandom,
            [buffer as c_long, length as c_long, flags as c_long, 0, 0, 0],
        ) as isize
    }
}

/// # Safety
/// As `syscall(2)`. Its real form is variadic; six registers are what any call takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom {
        // SAFETY: the arguments of getrandom.
        return unsafe { getrandom(a as *mut c_void, b as usize, c as c_uint) as c_long };
    }
    // SAFETY: passed on as it came.
    unsafe { call(number, [a, b, c, d, e, f]) }
}

/// # Safety
/// As `clock_gettime(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let simulated = matches!(RANDOM.try_with(Cell::get), Ok(Some(_)));
    let stands_still = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(EPOCH_SECONDS),
        // What counts the time inside a simulation is tokio's clock, which is paused.
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE => Some(MONOTONIC_SECONDS),
        _ => None,
    };
    if let (true, Some(seconds)) = (simulated && !time.is_null(), stands_still) {
        // SAFETY: the caller gives a timespec.
        unsafe {
            (*time).tv_sec = seconds;
            (*time).tv_nsec = 0;
        }
        return 0;
    }
    // SAFETY: passed on as it came.
    unsafe { call(libc::SYS_clock_gettime, [clock as c_long, time as c_long, 0, 0, 0, 0]) as c_int }
}
