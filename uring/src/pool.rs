//! A fixed number of equal buffers in one mapping, with a LIFO free list and prebuilt reference counts.
//!
//! Owns: the memory. A buffer is free, with the kernel (its number is out of the free list, nobody refers to it), or
//! leased. Leases hold the pool, so they may outlive the ring that made them. Refuses to know what the bytes are.

use crate::chunk::{Header, Lease};
use crate::map::Mapping;
use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;

/// Room in front of each buffer: one cache line, so that the data starts on one and a frame header fits before it.
/// It also staggers the buffers, which would otherwise compete for the same cache sets.
const FRONT: usize = 64;

/// What all holders share; lives until the pool handle and the last lease are gone.
pub(crate) struct PoolShared {
    /// The pool handle and every leased buffer count one each.
    holders: Cell<usize>,
    /// Numbers of free buffers, the hottest last. Never grows over its first capacity.
    free: RefCell<Vec<u16>>,
    headers: Vec<Header>,
    size: usize,
    _memory: Mapping,
}

impl PoolShared {
    /// Takes a buffer back from its last lease.
    ///
    /// # Safety
    /// `pool` is alive, `index` was leased and its last reference is gone.
    pub(crate) unsafe fn give_back(pool: NonNull<Self>, index: u16) {
        // SAFETY: the caller says that the pool is alive.
        unsafe { pool.as_ref() }.free.borrow_mut().push(index);
        // SAFETY: the lease was a holder.
        unsafe { Self::release(pool) };
    }

    /// # Safety
    /// The caller is a holder and gives that up.
    unsafe fn release(pool: NonNull<Self>) {
        // SAFETY: a holder keeps the pool alive.
        let this = unsafe { pool.as_ref() };
        let holders = this.holders.get() - 1;
        this.holders.set(holders);
        if holders == 0 {
            // SAFETY: `Pool::new` leaked this box; no holder is left, so nothing refers to it.
            drop(unsafe { Box::from_raw(pool.as_ptr()) });
        }
    }
}

/// The ring's handle to a pool.
pub(crate) struct Pool {
    shared: NonNull<PoolShared>,
}

impl Pool {
    /// `count` buffers of `size` bytes. Pages are touched when they are first used, so a large pool costs nothing idle.
    pub(crate) fn new(count: u16, size: usize) -> io::Result<Self> {
        assert!(count > 0 && size > 0);
        let stride = (FRONT + size).next_multiple_of(FRONT);
        let memory = Mapping::new(stride * usize::from(count))?;
        let start = memory.start();
        let shared = NonNull::from(Box::leak(Box::new(PoolShared {
            holders: Cell::new(1),
            free: RefCell::new((0..count).rev().collect()),
            headers: Vec::with_capacity(usize::from(count)),
            size,
            _memory: memory,
        })));
        for index in 0..count {
            // SAFETY: `stride * count` bytes are mapped.
            let base = unsafe { start.add(stride * usize::from(index)) };
            let header = Header::pooled(shared, index, base, FRONT + size);
            // SAFETY: the box is ours alone until this function returns.
            unsafe { (*shared.as_ptr()).headers.push(header) };
        }
        Ok(Self { shared })
    }

    fn shared(&self) -> &PoolShared {
        // SAFETY: this handle is a holder.
        unsafe { self.shared.as_ref() }
    }

    /// Bytes in one buffer.
    pub(crate) fn size(&self) -> usize {
        self.shared().size
    }

    /// Buffers in all.
    pub(crate) fn total(&self) -> usize {
        self.shared().headers.len()
    }

    /// Buffers that are neither leased nor out.
    pub(crate) fn free(&self) -> usize {
        self.shared().free.borrow().len()
    }

    /// Takes the hottest free buffer out, for the kernel.
    pub(crate) fn take(&self) -> Option<u16> {
        self.shared().free.borrow_mut().pop()
    }

    /// Puts a buffer back that the kernel did not fill.
    pub(crate) fn put(&self, index: u16) {
        self.shared().free.borrow_mut().push(index);
    }

    /// First byte of a buffer.
    pub(crate) fn start(&self, index: u16) -> NonNull<u8> {
        let base = self.shared().headers[usize::from(index)].base();
        // SAFETY: every buffer has `FRONT + size` bytes.
        unsafe { base.add(FRONT) }
    }

    /// Turns a buffer that was taken into a lease of `offset..offset + len`.
    pub(crate) fn lease(&self, index: u16, offset: usize, len: usize) -> Lease {
        let shared = self.shared();
        assert!(offset <= shared.size && len <= shared.size - offset);
        let header = &shared.headers[usize::from(index)];
        header.claim();
        shared.holders.set(shared.holders.get() + 1);
        // SAFETY: the range is inside the buffer, mapped memory is initialised (zero at first), the buffer is out of the
        // free list and `claim` made sure that this is its only reference.
        unsafe {
            let start = self.start(index).add(offset);
            Lease::from_raw(NonNull::from(header), start, len)
        }
    }

    /// The number of a lease's buffer, if it is one of this pool.
    pub(crate) fn index_of(&self, lease: &Lease) -> Option<u16> {
        lease.pool_index().filter(|(pool, _)| *pool == self.shared).map(|(_, index)| index)
    }

    /// A whole buffer, if one is free.
    pub(crate) fn lease_any(&self) -> Option<Lease> {
        let index = self.take()?;
        Some(self.lease(index, 0, self.size()))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: this handle is a holder and ends here.
        unsafe { PoolShared::release(self.shared) };
    }
}
