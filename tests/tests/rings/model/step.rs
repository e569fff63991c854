//! What the two sides do, one at a time.

/// Operations of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Serve {
    Pop,
    /// Gives back one of the chains it holds.
    Finish(usize),
    /// Gives back all of them at once.
    FinishAll,
    EnableKicks,
    DisableKicks,
}

/// Operations of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Drive {
    Add(u8),
    Poll,
    EnableCalls,
    DisableCalls,
}

/// One step of the system.
#[expect(dead_code, reason = "a step is only ever printed, on the way to a wrong state")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The device makes its next access in this operation.
    Device(Serve),
    /// The driver does.
    Driver(Drive),
    /// The sleeping device takes its kick.
    Kick,
    /// The sleeping driver takes its call.
    Call,
}
