//! Where our front-end's channel for requests of the back-end and rust-vmm's differ, and why.

use crate::difference::Accepted;

/// Done, and answered if asked or if it always is.
const TAKEN: &[&str] = &["[*], goes on", "[*], answers 0x0, goes on", "[*], answers 0x0 + 1 fd, goes on"];

/// The end of the channel, even if an error number was told before.
const CLOSES: &[&str] = &["closes", "answers 0xffffffffffffffea, closes"];

pub(crate) const ACCEPTED: &[Accepted] = &[
    Accepted {
        cases: &["*"],
        ours: &["goes on"],
        theirs: &["closes"],
        count: 91,
        reason: "Both refuse, and no acknowledgement is due: ours goes on, as QEMU, theirs ends.",
    },
    Accepted {
        cases: &["*"],
        ours: &["answers 0x1, goes on"],
        theirs: CLOSES,
        count: 105,
        reason: "Both refuse; ours says so and goes on, as QEMU, theirs ends.",
    },
    Accepted {
        cases: &["*/flags 0x5/flagged"],
        ours: &["closes"],
        theirs: &["answers 0xffffffffffffffea, closes"],
        count: 3,
        reason: "Both refuse and end; theirs answers even what is no request.",
    },
    Accepted {
        cases: &["*/flags 0x11*", "*/flags 0xfffffff1*"],
        ours: TAKEN,
        theirs: &["closes"],
        count: 24,
        reason: "Reserved flags mean nothing yet; theirs refuses them.",
    },
    Accepted {
        cases: &["SHARED_OBJECT_*/all bytes *"],
        ours: TAKEN,
        theirs: CLOSES,
        count: 12,
        reason: "Whether an object can have this name is the VMM's to say; theirs excludes two names.",
    },
    Accepted {
        cases: &["SHARED_OBJECT_LOOKUP (usual)/as it should be*"],
        ours: TAKEN,
        theirs: &["closes"],
        count: 2,
        reason: "The object comes back with the answer; theirs wants a descriptor with the question.",
    },
    Accepted {
        cases: &["SHARED_OBJECT_LOOKUP/1 descriptors, not 0*"],
        ours: &["answers 0x1, goes on"],
        theirs: TAKEN,
        count: 2,
        reason: "So a question without the descriptor that theirs wants is right, and one with it is not.",
    },
    Accepted {
        cases: &["SHMEM_*/flags 2*", "SHMEM_*/all flags*"],
        ours: TAKEN,
        theirs: CLOSES,
        count: 8,
        reason: "Reserved flags of a mapping mean nothing yet, as for QEMU.",
    },
    Accepted {
        cases: &["SHMEM_*/no byte*", "SHMEM_UNMAP/an offset in the file that wraps*"],
        ours: TAKEN,
        theirs: CLOSES,
        count: 6,
        reason: "Whether nothing can be mapped is the VMM's to say, and nothing is taken from a file to unmap it.",
    },
];
