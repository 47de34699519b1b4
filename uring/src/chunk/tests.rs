use super::*;
use crate::pool::Pool;

#[test]
fn splits_and_slices_share_memory() {
    let mut chunk = Chunk::copy_from(b"hello, world");
    let head = chunk.split_to(5);
    assert_eq!((&head[..], &chunk[..]), (&b"hello"[..], &b", world"[..]));
    let tail = chunk.split_off(2);
    assert_eq!((&chunk[..], &tail[..]), (&b", "[..], &b"world"[..]));
    assert_eq!(&tail.slice(1..3)[..], b"or");
    assert!(!tail.is_unique());
    drop((head, chunk));
    assert!(tail.is_unique() && !tail.is_pooled());
}

#[test]
fn a_prefix_goes_in_front_only_of_unshared_bytes() {
    let mut chunk = Chunk::copy_from(b"body");
    let other = chunk.clone();
    assert!(!chunk.try_add_prefix(b"4\r\n"));
    drop(other);
    assert!(chunk.try_add_prefix(b"4\r\n"));
    assert_eq!(&chunk[..], b"4\r\nbody");
    assert!(!chunk.try_add_prefix(&[0; 14]), "13 bytes are left");
    assert!(chunk.try_add_prefix(&[7; 13]));
    assert!(!chunk.try_add_prefix(b"x"));
    assert!(!Chunk::from_static(b"static").try_add_prefix(b"x"));
    assert!(!Chunk::default().try_add_prefix(b"x"));
}

#[test]
fn what_was_advanced_over_is_room() {
    let mut chunk = Chunk::from_vec(b"0123456789".to_vec());
    chunk.advance(4);
    assert!(chunk.try_add_prefix(b"abcd"));
    assert_eq!(&chunk[..], b"abcd456789");
}

#[test]
fn filled_buffers_freeze_without_a_copy_and_are_recycled() {
    let mut buffer = ChunkMut::zeroed(16 << 10);
    buffer[..3].copy_from_slice(b"abc");
    let place = buffer.as_ptr();
    let chunk = buffer.freeze(3);
    assert_eq!((chunk.as_ptr(), &chunk[..]), (place, &b"abc"[..]));
    drop(chunk);
    assert_eq!(ChunkMut::zeroed(9 << 10).as_ptr(), place, "same class, last freed first");
}

#[test]
fn vectors_of_the_usual_size_come_back_empty() {
    let mut vector = Chunk::vector(1300);
    assert_eq!(vector.capacity(), 2048);
    vector.extend_from_slice(b"a response");
    let place = vector.as_ptr();
    let chunk = Chunk::from_vec(vector);
    let part = chunk.slice(2..10);
    drop(chunk);
    let other = Chunk::vector(1300);
    assert_ne!(other.as_ptr(), place, "somebody still reads it");
    assert_eq!(&part[..], b"response");
    drop(part);
    let again = Chunk::vector(600);
    assert_eq!((again.as_ptr(), again.len()), (place, 0));
}

#[test]
fn other_vectors_are_the_allocators_and_a_thread_keeps_a_bounded_number() {
    assert_eq!((Chunk::vector(100).capacity(), Chunk::vector(5000).capacity()), (100, 5000));
    drop(Chunk::from_vec(vec![1; 5000]));
    let chunks: Vec<_> = (0..300)
        .map(|_| {
            let mut vector = Chunk::vector(1024);
            vector.push(7);
            Chunk::from_vec(vector)
        })
        .collect();
    drop(chunks);
    assert_eq!(header::kept_vectors(), 256);
}

#[test]
fn sizes_around_the_classes_hold_their_bytes() {
    for len in [0, 1, 511, 512, 2048, 2049, 16384, 16385, 65536, 65537, 200_000] {
        let mut buffer = ChunkMut::zeroed(len);
        assert_eq!(buffer.len(), len);
        buffer.fill(0xa5);
        let chunk = buffer.freeze(len);
        assert!(chunk.iter().all(|byte| *byte == 0xa5));
    }
}

#[test]
fn the_free_list_is_bounded() {
    let held: Vec<ChunkMut> = (0..100).map(|_| ChunkMut::zeroed(65536)).collect();
    drop(held);
    let again: Vec<ChunkMut> = (0..100).map(|_| ChunkMut::zeroed(65536)).collect();
    assert_eq!(again.len(), 100);
}

#[test]
fn pooled_buffers_return_when_the_last_chunk_goes() {
    let pool = Pool::new(2, 4096).unwrap();
    let mut lease = pool.lease_any().unwrap();
    lease[..4].copy_from_slice(b"data");
    let other = pool.lease_any().unwrap();
    assert!(pool.lease_any().is_none());
    let mut chunk = lease.into_chunk();
    assert!(chunk.is_pooled());
    let head = chunk.split_to(4);
    drop(chunk);
    assert_eq!(pool.free(), 0);
    drop(head);
    assert_eq!((pool.free(), pool.total()), (1, 2));
    drop(other);
    assert_eq!(pool.free(), 2);
}

#[test]
fn leases_outlive_their_pool() {
    let pool = Pool::new(3, 3000).unwrap();
    let mut lease = pool.lease_any().unwrap();
    lease.fill(7);
    let chunk = lease.into_chunk();
    drop(pool);
    assert!(chunk.iter().all(|byte| *byte == 7) && chunk.len() == 3000);
}

#[test]
fn the_hottest_buffer_is_next() {
    let pool = Pool::new(8, 64).unwrap();
    let first = pool.lease_any().unwrap();
    let second = pool.lease_any().unwrap();
    let place = first.as_ptr();
    drop(second);
    drop(first);
    assert_eq!(pool.lease_any().unwrap().as_ptr(), place);
}

#[test]
fn a_pooled_chunk_has_room_in_front() {
    let pool = Pool::new(1, 4096).unwrap();
    let mut chunk = pool.lease_any().unwrap().into_chunk();
    assert!(chunk.is_pooled() && chunk.try_add_prefix(&[1; 16]));
    assert_eq!(chunk.len(), 4112);
}

#[test]
fn a_few_bytes_do_not_pin_a_receive_buffer() {
    let pool = Pool::new(1, 65_536).unwrap();
    for (len, pinned) in [(Lease::SMALL, false), (Lease::SMALL + 1, true)] {
        let index = pool.take().unwrap();
        let mut lease = pool.lease(index, 100, len);
        lease.fill(5);
        let mut chunk = lease.into_chunk();
        assert_eq!((chunk.is_pooled(), pool.free() == 0), (pinned, pinned));
        assert!(chunk.len() == len && chunk.iter().all(|byte| *byte == 5));
        assert!(chunk.try_add_prefix(&[0; 16]));
    }
}
