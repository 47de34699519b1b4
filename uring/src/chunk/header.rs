//! The counted memory behind chunks and leases: one plain reference count and where the memory goes at zero.
//!
//! Three origins: a *block* (header and bytes in one allocation), a *vector* somebody gave us, or a buffer of a
//! [`Pool`](crate::pool::Pool), whose headers are built once. Blocks and vectors of the usual sizes are kept on bounded
//! free lists of the thread.

use crate::pool::PoolShared;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

/// Bytes of room in front of a fresh block: an HTTP/3 DATA frame header (1 + 8) or a chunk-size line fits.
pub(super) const HEADROOM: usize = 16;

/// Block sizes that are recycled, and how many of each a thread keeps: 0.5 + 1 + 2 MiB at most.
const CLASSES: [(usize, usize); 3] = [(2 << 10, 256), (16 << 10, 64), (64 << 10, 32)];

/// Under this, the allocator is as good as our list and a 2 KiB block would waste most of itself.
const CLASS_MIN: usize = 512;

/// Bytes of a vector that is recycled, and how many a thread keeps: 0.5 MiB at most.
const VECTOR_BYTES: usize = 2 << 10;
const VECTORS: usize = 256;

/// A block that belongs to no class.
const NO_CLASS: u8 = u8::MAX;

enum Origin {
    /// Header and bytes are one allocation of `block_layout(capacity)`.
    Block { class: u8 },
    /// This header is the first field of a boxed [`VectorHeader`].
    Vector,
    /// One of a pool's prebuilt headers.
    Pool { pool: NonNull<PoolShared>, index: u16 },
}

/// Count and origin of one piece of memory. Never moves while it is referenced.
#[repr(C, align(16))]
pub(crate) struct Header {
    /// Handles that exist; 0 only while a pooled buffer is free or with the kernel.
    refs: Cell<u32>,
    origin: Origin,
    /// First byte of the memory, room in front included.
    base: NonNull<u8>,
    /// Bytes from `base` on.
    capacity: usize,
}

#[repr(C)]
struct VectorHeader {
    header: Header,
    vector: Vec<u8>,
}

impl Header {
    /// A block with `HEADROOM + len` initialised bytes and one reference.
    pub(super) fn new_block(len: usize) -> NonNull<Self> {
        let class = class_of(len);
        if let Some(header) = class.and_then(FreeBlocks::take) {
            // SAFETY: blocks on the free list are alive and nobody refers to them.
            unsafe { header.as_ref() }.refs.set(1);
            return header;
        }
        let len = class.map_or(len, |class| CLASSES[usize::from(class)].0);
        let capacity = len.checked_add(HEADROOM).expect("chunk size");
        let layout = block_layout(capacity);
        // SAFETY: the layout is never empty: it holds a header.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(header) = NonNull::new(memory.cast::<Header>()) else { handle_alloc_error(layout) };
        // SAFETY: the allocation is `size_of::<Header>() + capacity` bytes, aligned for a header.
        unsafe {
            header.write(Header {
                refs: Cell::new(1),
                origin: Origin::Block { class: class.unwrap_or(NO_CLASS) },
                base: header.add(1).cast(),
                capacity,
            });
        }
        header
    }

    /// Takes a vector over, with one reference.
    pub(super) fn new_vector(mut vector: Vec<u8>) -> NonNull<Self> {
        let base = NonNull::new(vector.as_mut_ptr()).expect("a vector's pointer is never null");
        let capacity = vector.len();
        let boxed = Box::new(VectorHeader {
            header: Header { refs: Cell::new(1), origin: Origin::Vector, base, capacity },
            vector,
        });
        NonNull::from(Box::leak(boxed)).cast()
    }

    /// The header of a pool's buffer, unreferenced.
    pub(crate) fn pooled(pool: NonNull<PoolShared>, index: u16, base: NonNull<u8>, capacity: usize) -> Self {
        Self { refs: Cell::new(0), origin: Origin::Pool { pool, index }, base, capacity }
    }

    /// Gives a free pooled buffer its one reference.
    pub(crate) fn claim(&self) {
        assert_eq!(self.refs.get(), 0, "a pooled buffer has one claim");
        self.refs.set(1);
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn is_pooled(&self) -> bool {
        matches!(self.origin, Origin::Pool { .. })
    }

    pub(super) fn is_unique(&self) -> bool {
        self.refs.get() == 1
    }

    pub(super) fn pool_index(&self) -> Option<(NonNull<PoolShared>, u16)> {
        match self.origin {
            Origin::Pool { pool, index } => Some((pool, index)),
            _ => None,
        }
    }

    /// Bytes of this memory before `start`, which stands inside it.
    pub(super) fn room_before(&self, start: NonNull<u8>) -> usize {
        let room = start.addr().get() - self.base.addr().get();
        debug_assert!(room <= self.capacity);
        room
    }

    pub(super) fn retain(&self) {
        let refs = self.refs.get();
        if refs == u32::MAX {
            // Only forgetting four thousand million chunks leads here; wrapping would free live memory.
            std::process::abort();
        }
        self.refs.set(refs + 1);
    }

    /// Gives one reference up; at zero the memory goes where it came from.
    ///
    /// # Safety
    /// The caller owns a reference to a live header and never uses it again.
    pub(super) unsafe fn release(header: NonNull<Self>) {
        // SAFETY: the caller's reference keeps the header alive until we decide otherwise below.
        let this = unsafe { header.as_ref() };
        let refs = this.refs.get() - 1;
        this.refs.set(refs);
        if refs > 0 {
            return;
        }
        match this.origin {
            Origin::Pool { pool, index } => {
                // SAFETY: a referenced buffer counts as a holder of its pool, so the pool is alive; that count is what
                // `give_back` ends.
                unsafe { PoolShared::give_back(pool, index) };
            }
            Origin::Block { class } => {
                if class == NO_CLASS || !FreeBlocks::put(class, header) {
                    // SAFETY: nobody refers to the block any more.
                    unsafe { free_block(header) };
                }
            }
            Origin::Vector => {
                // SAFETY: `new_vector` leaked exactly this box, and nobody refers to it any more.
                let boxed = unsafe { Box::from_raw(header.cast::<VectorHeader>().as_ptr()) };
                debug_assert_eq!(boxed.header.base.as_ptr().cast_const(), boxed.vector.as_ptr());
                FreeBlocks::put_vector(boxed.vector);
            }
        }
    }
}

fn block_layout(capacity: usize) -> Layout {
    let size = size_of::<Header>().checked_add(capacity);
    Layout::from_size_align(size.expect("chunk size"), align_of::<Header>()).expect("chunk size")
}

/// # Safety
/// `header` is a block that nobody refers to.
unsafe fn free_block(header: NonNull<Header>) {
    // SAFETY: the block is alive until the next line.
    let layout = block_layout(unsafe { header.as_ref() }.capacity);
    // SAFETY: `new_block` allocated it with this layout.
    unsafe { dealloc(header.cast().as_ptr(), layout) };
}

fn class_of(len: usize) -> Option<u8> {
    if len < CLASS_MIN {
        return None;
    }
    let class = CLASSES.iter().position(|(size, _)| len <= *size)?;
    u8::try_from(class).ok()
}

/// An empty vector with room for `capacity` bytes, one that a chunk gave back if it will do.
pub(super) fn vector(capacity: usize) -> Vec<u8> {
    if !(CLASS_MIN..=VECTOR_BYTES).contains(&capacity) {
        return Vec::with_capacity(capacity);
    }
    FREE.try_with(|free| free.borrow_mut().vectors.pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| Vec::with_capacity(VECTOR_BYTES))
}

#[cfg(test)]
pub(super) fn kept_vectors() -> usize {
    FREE.with(|free| free.borrow().vectors.len())
}

/// Memory of this thread that waits for its next use, the last freed first (it is the one in the cache).
struct FreeBlocks {
    lists: [Vec<NonNull<Header>>; CLASSES.len()],
    vectors: Vec<Vec<u8>>,
}

thread_local! {
    static FREE: RefCell<FreeBlocks> = const {
        RefCell::new(FreeBlocks { lists: [Vec::new(), Vec::new(), Vec::new()], vectors: Vec::new() })
    };
}

impl FreeBlocks {
    fn take(class: u8) -> Option<NonNull<Header>> {
        FREE.try_with(|free| free.borrow_mut().lists[usize::from(class)].pop()).ok().flatten()
    }

    /// False: the list is full, or the thread is ending and has no list any more.
    fn put(class: u8, header: NonNull<Header>) -> bool {
        FREE.try_with(|free| {
            let list = &mut free.borrow_mut().lists[usize::from(class)];
            if list.len() == CLASSES[usize::from(class)].1 {
                return false;
            }
            list.push(header);
            true
        })
        .unwrap_or(false)
    }

    /// Keeps a vector of the usual size while there is room, and drops any other.
    fn put_vector(mut vector: Vec<u8>) {
        if vector.capacity() != VECTOR_BYTES {
            return;
        }
        vector.clear();
        let _ = FREE.try_with(|free| {
            let vectors = &mut free.borrow_mut().vectors;
            if vectors.len() < VECTORS {
                vectors.push(vector);
            }
        });
    }
}

impl Drop for FreeBlocks {
    fn drop(&mut self) {
        for header in self.lists.iter_mut().flat_map(std::mem::take) {
            // SAFETY: blocks on the list are referred to by nobody.
            unsafe { free_block(header) };
        }
    }
}

// Kept here so that a change of the fields is noticed: a block's bytes start right after its header.
const _: () = assert!(size_of::<Header>().is_multiple_of(16));
