//! Where our front-end and rust-vmm's differ, and why.

use crate::difference::Accepted;

/// In what they send.
pub(crate) const BYTES: &[Accepted] = &[
    Accepted {
        cases: &[
            "flagged/get_*",
            "flagged/set_log_base",
            "flagged/set_device_state_fd",
            "flagged/check_device_state",
            "flagged/postcopy_advise",
        ],
        ours: &["* flags 0x1*"],
        theirs: &["* flags 0x9*"],
        count: 13,
        reason: "A reply comes anyway, and QEMU and DPDK ask for no acknowledgement beside it, which some would send too.",
    },
    Accepted {
        cases: &["flagged/set_protocol_features"],
        ours: &["16 flags 0x1*"],
        theirs: &["16 flags 0x9*"],
        count: 1,
        reason: "Back-ends do not agree on whether this one is acknowledged already, so ours does not ask, as QEMU.",
    },
    Accepted {
        cases: &["silent/postcopy_listen", "silent/postcopy_end*"],
        ours: &["* flags 0x9"],
        theirs: &["* flags 0x1"],
        count: 3,
        reason: "QEMU asks for these acknowledgements always, and libvhost-user sends them only then.",
    },
    Accepted {
        cases: &["*/* that were not offered", "fresh/set_*features"],
        ours: &["nothing"],
        theirs: &["* flags 0x*"],
        count: 6,
        reason: "Features that were not offered cannot be taken; theirs sends what it is given.",
    },
    Accepted {
        cases: &["fresh/set_log_base"],
        ours: &["nothing"],
        theirs: &["6 flags 0x1, 0000000000000000"],
        count: 1,
        reason: "Without LOG_SHMFD there is no way to share a log; theirs sends an address, which is of no use to anybody.",
    },
    Accepted {
        cases: &[
            "*/set_vring_num 3",
            "*/set_vring_addr misaligned",
            "*/get_config of 257",
            "*/get_inflight_fd of 3 queues",
            "*/add_mem_region that wraps",
            "*/set_mem_table of the same twice",
            "*/set_mem_table of nine",
            "*/remove_mem_region of another",
            "*/postcopy_listen unadvised",
        ],
        ours: &["nothing"],
        theirs: &["* flags 0x*"],
        count: 22,
        reason: "Ours sends nothing that its own back-end would refuse; theirs leaves it to the other side.",
    },
    Accepted {
        cases: &[
            "*/set_mem_table of none",
            "*/get_config of nothing",
            "*/get_config at the end of all offsets",
            "*/set_inflight_fd of nothing",
            "*/get_shared_object without a name",
        ],
        ours: &["* flags 0x*"],
        theirs: &["nothing"],
        count: 11,
        reason: "The specification forbids none of these, so the other side decides; theirs does not send them.",
    },
];

/// In what they make of replies.
pub(crate) const REPLIES: &[Accepted] = &[
    Accepted {
        cases: &["*/flags 0x15", "*/flags 0xfffffff5"],
        ours: &["*"],
        theirs: &["fails", "out of step"],
        count: 100,
        reason: "Reserved flags mean nothing yet: DPDK and libvhost-user send back those of the request.",
    },
    Accepted {
        cases: &["silent/postcopy_listen/*"],
        ours: &["done", "refused", "fails"],
        theirs: &["out of step", "done"],
        count: 19,
        reason: "Ours asks for these acknowledgements always and reads them; theirs does not wait for one.",
    },
    Accepted {
        cases: &["*/set_protocol_features/*"],
        ours: &["done", "out of step"],
        theirs: &["fails", "done"],
        count: 2,
        reason: "Ours asks for no acknowledgement of this one, so none may come; theirs waits for one.",
    },
    Accepted {
        cases: &["*/* bytes, not *"],
        ours: &["fails"],
        theirs: &["out of step"],
        count: 115,
        reason: "The reply has not the size that was announced or is right; theirs reads on in the next one.",
    },
    Accepted {
        cases: &["*/get_config/*"],
        ours: &["[*]"],
        theirs: &["fails"],
        count: 14,
        reason: "SPDK always sends 256 bytes, others fewer than asked for, and QEMU does not look at the offset either.",
    },
    Accepted {
        cases: &["*/get_config/*", "*/get_shared_object/*", "*/postcopy_advise/*", "*/get_inflight_fd/*"],
        ours: &["refused", "none"],
        theirs: &["fails"],
        count: 20,
        reason: "So back-ends refuse, and the session goes on; for theirs it is an error like any other.",
    },
    Accepted {
        cases: &["*/get_shared_object/*", "*/postcopy_advise/1 bytes, not 0"],
        ours: &["a descriptor"],
        theirs: &["out of step"],
        count: 6,
        reason: "Only the descriptor counts, and libvhost-user repeats the name beside it; theirs reads on in the next reply.",
    },
    Accepted {
        cases: &["*/set_log_base/*"],
        ours: &["done"],
        theirs: &["out of step"],
        count: 6,
        reason: "The content of this reply means nothing, and DPDK sends none, libvhost-user a number; theirs wants the log.",
    },
    Accepted {
        cases: &["*/get_vring_base/of another ring", "*/get_vring_base/of no ring"],
        ours: &["fails"],
        theirs: &["7"],
        count: 4,
        reason: "The answer is about another ring than the question; theirs does not look.",
    },
    Accepted {
        cases: &["*/get_vring_base/a large one"],
        ours: &["7"],
        theirs: &["10007"],
        count: 2,
        reason: "The index of a split ring has sixteen bits.",
    },
    Accepted {
        cases: &["*/get_inflight_fd/no byte and a descriptor"],
        ours: &["none"],
        theirs: &["(0, *)"],
        count: 2,
        reason: "A record without a byte is none.",
    },
    Accepted {
        cases: &["*/set_device_state_fd/*"],
        ours: &["fails"],
        theirs: &["refused"],
        count: 8,
        reason: "The number says another thing than the descriptor does, so what was meant is not known.",
    },
    Accepted {
        cases: &["*/set_device_state_fd/a bit that means nothing"],
        ours: &["none"],
        theirs: &["refused"],
        count: 2,
        reason: "Reserved bits mean nothing yet: bits 0 to 7 tell an error, and bit 8 whether a descriptor comes.",
    },
];
