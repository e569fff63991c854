//! What firmware has besides if it goes on after a crash, a migration or behind a vIOMMU: inflight records, the dirty log, the
//! IOTLB.

use vhost_core::*;

use crate::{Memory, Piece, Pieces};

reach! { recovery;
    DeviceQueue<Piece>: recover, set_log, pop_recovered::<Memory, Pieces>;
    DirtyLog<Piece>: new, size_for, mark;
    Iotlb<UserAddress, 64>: new, apply, look_up;
}

reach_traits! { translation;
    GuestMemory for IotlbMemory<'static, Memory, GuestAddress, 64>: piece, range;
}
