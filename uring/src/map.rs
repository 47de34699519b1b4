//! Anonymous memory straight from the kernel: page-aligned, zero, and given back when dropped.

use std::io;
use std::ptr::NonNull;

/// One private anonymous mapping.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A child of a fork must not share buffers that the kernel still fills for us.
        // SAFETY: the range was mapped just above. Failure only loses that protection.
        unsafe { libc::madvise(memory, len, libc::MADV_DONTFORK) };
        let start = NonNull::new(memory.cast()).expect("mmap never maps address zero here");
        Ok(Self { start, len })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever drops it has no pointer into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
