//! Classic BPF: programs that the kernel runs on a datagram to choose a socket of a SO_REUSEPORT group.
//!
//! Owns the instruction's form and its names. What a program looks for is the caller's: nothing here knows a packet. The
//! kernel checks every program before it takes it (jumps only go forward, memory stays inside its 16 words), so no
//! program can do more than choose wrongly. The datagram begins behind its UDP header; a load beyond its end ends the
//! program with 0.
//!
//! A program has an accumulator A, an index X and 16 words of memory, all of 32 bits.

/// One instruction, in the form of the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a condition holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The constant.
    pub constant: u32,
}

/// Most instructions of a program.
pub const PROGRAM_LEN_MAX: usize = libc::BPF_MAXINSNS as usize;

impl Instruction {
    const fn plain(code: u32, constant: u32) -> Self {
        Self { code: code as u16, jump_true: 0, jump_false: 0, constant }
    }

    /// A = length of the datagram.
    pub const fn load_length() -> Self {
        Self::plain(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0)
    }

    /// A = byte `at` of the datagram.
    pub const fn load_byte(at: u32) -> Self {
        Self::plain(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at)
    }

    /// A = the 32 bits from byte `at` on, big-endian.
    pub const fn load_word(at: u32) -> Self {
        Self::plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
    }

    /// A = the 32 bits from byte X + `at` on, big-endian.
    pub const fn load_word_behind_x(at: u32) -> Self {
        Self::plain(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, at)
    }

    /// A = the 16 bits from byte X + `at` on, big-endian.
    pub const fn load_half_behind_x(at: u32) -> Self {
        Self::plain(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, at)
    }

    /// X = `value`.
    pub const fn set_x(value: u32) -> Self {
        Self::plain(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, value)
    }

    /// A = word `slot` of memory.
    pub const fn load(slot: u32) -> Self {
        Self::plain(libc::BPF_LD | libc::BPF_W | libc::BPF_MEM, slot)
    }

    /// X = word `slot` of memory.
    pub const fn load_x(slot: u32) -> Self {
        Self::plain(libc::BPF_LDX | libc::BPF_W | libc::BPF_MEM, slot)
    }

    /// Word `slot` of memory = A.
    pub const fn store(slot: u32) -> Self {
        Self::plain(libc::BPF_ST, slot)
    }

    /// Word `slot` of memory = X.
    pub const fn store_x(slot: u32) -> Self {
        Self::plain(libc::BPF_STX, slot)
    }

    /// A ^= X.
    pub const fn xor_x() -> Self {
        Self::plain(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0)
    }

    /// A ^= `value`.
    pub const fn xor(value: u32) -> Self {
        Self::plain(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_K, value)
    }

    /// A &= `value`.
    pub const fn and(value: u32) -> Self {
        Self::plain(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, value)
    }

    /// A *= `value`, the low 32 bits.
    pub const fn multiply(value: u32) -> Self {
        Self::plain(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, value)
    }

    /// A >>= `bits`.
    pub const fn shift_right(bits: u32) -> Self {
        Self::plain(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, bits)
    }

    /// Skips that many instructions.
    pub const fn skip(count: u32) -> Self {
        Self::plain(libc::BPF_JMP | libc::BPF_JA, count)
    }

    /// Skips `yes` instructions if A = `value`, else `no`.
    pub const fn if_equal(value: u32, yes: u8, no: u8) -> Self {
        let plain = Self::plain(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
        Self { jump_true: yes, jump_false: no, ..plain }
    }

    /// Skips `yes` instructions if A >= `value`, else `no`.
    pub const fn if_at_least(value: u32, yes: u8, no: u8) -> Self {
        let plain = Self::plain(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value);
        Self { jump_true: yes, jump_false: no, ..plain }
    }

    /// Skips `yes` instructions if A has any bit of `value`, else `no`.
    pub const fn if_any(value: u32, yes: u8, no: u8) -> Self {
        let plain = Self::plain(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, value);
        Self { jump_true: yes, jump_false: no, ..plain }
    }

    /// Ends with A: the position of the socket in its group. A position that is none leaves the choice to the kernel's
    /// hash of the addresses.
    pub const fn choose_a() -> Self {
        // The register that is returned; <linux/filter.h> names it, the libc crate does not.
        const BPF_A: u32 = 0x10;
        Self::plain(libc::BPF_RET | BPF_A, 0)
    }

    /// Ends with `value`, see [`Self::choose_a`].
    pub const fn choose(value: u32) -> Self {
        Self::plain(libc::BPF_RET | libc::BPF_K, value)
    }

    pub(crate) const fn raw(self) -> libc::sock_filter {
        libc::sock_filter { code: self.code, jt: self.jump_true, jf: self.jump_false, k: self.constant }
    }
}
