//! A device and a driver that work on one ring, each as a program of operations, and what must hold of them.

use vhost_core::{Chain, DeviceQueue, DeviceQueueState, DriverQueue, DriverQueueState, RingLayout, VirtioFeatures};

use super::memory::{Ran, Read, Seen, Shared, Side, Stores, Window};
use super::operations::{
    Drive, Driven, LENGTH, Serve, Served, added_by, buffer, drive_whole, parts, pieces, serve_whole,
};
use crate::guest::first_base;
use vhost_tests::explore::Model;

/// Bytes of the memory: enough for the ring.
const MEMORY: usize = 0x80;

/// Room for the driver's state; the rings here have at most this many descriptors.
pub(super) const ROOM: usize = 4;

/// What is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    pub(crate) features: VirtioFeatures,
    pub(crate) size: u16,
    /// Buffers that go through the ring one by one before the exploration begins, for a place near the wrap.
    pub(crate) before: u32,
    /// Buffers of the exploration.
    pub(crate) buffers: u8,
    /// Descriptors of each.
    pub(crate) descriptors: u16,
    /// Chains the device holds at most.
    pub(crate) depth: usize,
    pub(crate) stores: Stores,
    pub(crate) widened: Widened,
}

/// A rule that one side breaks, to see that the exploration would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Widened {
    Nothing,
    /// The device sleeps although more came while it asked for kicks.
    DeviceSleepsAnyway,
    /// The driver sleeps although more came while it asked for calls.
    DriverSleepsAnyway,
    /// The device gives every chain back twice.
    DeviceRepeats,
    /// The device asks about calls before it publishes.
    AsksTooEarly,
}

/// What a side does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    /// It looks for work.
    Working,
    /// It found none.
    Empty,
    /// It waits for a notification.
    Sleeping,
    /// It was notified.
    Woken,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Device {
    queue: DeviceQueueState,
    held: Vec<(Chain, u8)>,
    popped: u8,
    mode: Mode,
    under_way: Option<(Serve, Seen)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Driver {
    queue: DriverQueueState<ROOM>,
    /// Tokens that are out, with the number of the buffer.
    out: Vec<(u16, u8)>,
    added: u8,
    mode: Mode,
    under_way: Option<(Drive, Seen)>,
}

/// Both sides, the memory between them, and the notifications.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct System {
    plan: Plan,
    memory: Shared,
    device: Device,
    driver: Driver,
    kick: bool,
    call: bool,
    /// Buffers that the device gave back, and that the driver got back, a bit each.
    finished: u8,
    returned: u8,
}

impl System {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut memory = Shared::new(MEMORY);
        let (layout, size) = (RingLayout::of(plan.features), u32::from(plan.size));
        let driver = Window::whole(&mut memory, Side::Driver, |window| {
            DriverQueue::new(parts(window, plan), size, plan.features).unwrap().state()
        });
        let device = Window::whole(&mut memory, Side::Device, |window| {
            DeviceQueue::new(parts(window, plan), size, plan.features, first_base(layout)).unwrap().state()
        });
        let (mut driver, mut device) = (driver, device);
        for _ in 0..plan.before {
            driver = Window::whole(&mut memory, Side::Driver, |window| {
                let mut queue = DriverQueue::resume(parts(window, plan), driver.clone());
                queue.add(&[], &[buffer(0)]).unwrap();
                queue.publish().unwrap();
                queue.needs_kick().unwrap();
                queue.state()
            });
            device = Window::whole(&mut memory, Side::Device, |window| {
                let mut queue = DeviceQueue::resume(parts(window, plan), device);
                let chain = queue.pop(&window, &mut pieces()).unwrap().unwrap();
                queue.push(chain, 1).unwrap();
                queue.needs_call().unwrap();
                queue.state()
            });
            driver = Window::whole(&mut memory, Side::Driver, |window| {
                let mut queue = DriverQueue::resume(parts(window, plan), driver.clone());
                assert_eq!(queue.poll().unwrap().unwrap().written, 1);
                queue.state()
            });
        }
        memory.set_stores(plan.stores);
        let (mode, out, held) = (Mode::Working, Vec::new(), Vec::new());
        Self {
            plan,
            memory,
            device: Device { queue: device, held, popped: 0, mode: Mode::Empty, under_way: None },
            driver: Driver { queue: driver, out, added: 0, mode, under_way: None },
            kick: false,
            call: false,
            finished: 0,
            returned: 0,
        }
    }

    fn device_choices(&self) -> Vec<Serve> {
        let device = &self.device;
        if let Some((serve, _)) = &device.under_way {
            return vec![*serve];
        }
        let mut choices = Vec::new();
        // An in-order ring takes the oldest only.
        let finishable = if self.in_order() { device.held.len().min(1) } else { device.held.len() };
        let finish = (0..finishable).map(Serve::Finish);
        match device.mode {
            Mode::Working | Mode::Empty => {
                if device.mode == Mode::Working && device.held.len() < self.plan.depth {
                    choices.push(Serve::Pop);
                }
                choices.extend(finish);
                if device.held.len() > 1 {
                    choices.push(Serve::FinishAll);
                }
                if device.mode == Mode::Empty && device.held.is_empty() {
                    choices.push(Serve::EnableKicks);
                }
            }
            Mode::Sleeping => {}
            Mode::Woken => choices.push(Serve::DisableKicks),
        }
        choices
    }

    fn driver_choices(&self) -> Vec<Drive> {
        let driver = &self.driver;
        if let Some((drive, _)) = &driver.under_way {
            return vec![*drive];
        }
        if self.driver_is_done() {
            return Vec::new();
        }
        let left = self.plan.buffers - driver.added;
        let free = self.plan.size - driver.out.len() as u16 * self.plan.descriptors;
        let room = left.min((free / self.plan.descriptors) as u8);
        let add = (1..=room.min(2)).map(Drive::Add);
        match driver.mode {
            Mode::Working => add.chain((!driver.out.is_empty()).then_some(Drive::Poll)).collect(),
            Mode::Empty if room > 0 => add.collect(),
            Mode::Empty => vec![Drive::EnableCalls],
            Mode::Sleeping => Vec::new(),
            Mode::Woken => vec![Drive::DisableCalls],
        }
    }

    fn in_order(&self) -> bool {
        self.plan.features.contains(VirtioFeatures::IN_ORDER)
    }

    fn driver_is_done(&self) -> bool {
        self.driver.added == self.plan.buffers && self.driver.out.is_empty()
    }

    /// Adds every way in which `side` can make its next access in `operation`.
    fn accesses(
        &self,
        side: Side,
        step: Step,
        operation: impl Fn(&mut Self) -> Result<Read, String>,
        all: &mut Vec<(Step, Self)>,
    ) -> Result<(), String> {
        let mut next = self.clone();
        let read = operation(&mut next)?;
        all.push((step, next));
        if let Some((offset, length)) = read {
            for memory in self.memory.before_read(side, offset, length) {
                let mut next = Self { memory, ..self.clone() };
                operation(&mut next)?;
                all.push((step, next));
            }
        }
        Ok(())
    }

    /// The device makes its next access in `serve`.
    fn serve(&mut self, serve: Serve) -> Result<Read, String> {
        let (plan, queue, next, held) = (self.plan, self.device.queue, self.device.popped, self.device.held.clone());
        let seen = self.device.under_way.take().map(|(_, seen)| seen).unwrap_or_default();
        let (ran, read) = Window::run(&mut self.memory, Side::Device, &seen, 1, |window| {
            let mut queue = DeviceQueue::resume(parts(window, plan), queue);
            serve_whole(&mut queue, window, serve, next, held, plan).map(|done| (queue.state(), done))
        });
        let (queue, done) = match ran {
            Ran::Cut(seen) => {
                self.device.under_way = Some((serve, seen));
                return Ok(read);
            }
            Ran::Whole(result) => result?,
        };
        let device = &mut self.device;
        device.queue = queue;
        match done {
            Served::Popped(chain) => {
                if device.popped >= self.driver.added {
                    return Err(format!("popped buffer {} before it was added", device.popped));
                }
                device.held.push((chain, device.popped));
                device.popped += 1;
            }
            Served::Empty => device.mode = Mode::Empty,
            Served::Finished(range, call) => {
                for (_, number) in device.held.drain(range) {
                    self.finished |= 1 << number;
                }
                self.call |= call;
            }
            Served::More(more) => {
                let sleeps = !more || plan.widened == Widened::DeviceSleepsAnyway;
                device.mode = if sleeps { Mode::Sleeping } else { Mode::Working };
            }
            Served::KicksDisabled => device.mode = Mode::Working,
        }
        Ok(read)
    }

    /// The driver makes its next access in `drive`.
    fn drive(&mut self, drive: Drive) -> Result<Read, String> {
        let (plan, queue, first) = (self.plan, self.driver.queue.clone(), self.driver.added);
        let seen = self.driver.under_way.take().map(|(_, seen)| seen).unwrap_or_default();
        if let Drive::Add(count) = drive {
            // The device may see a buffer before the operation is over.
            self.driver.added = self.driver.added.max(first + if seen.is_empty() { count } else { 0 });
        }
        let first = if seen.is_empty() { first } else { first - added_by(drive) };
        let (ran, read) = Window::run(&mut self.memory, Side::Driver, &seen, 1, |window| {
            let mut queue = DriverQueue::resume(parts(window, plan), queue);
            drive_whole(&mut queue, drive, first, plan).map(|done| (queue.state(), done))
        });
        let (queue, done) = match ran {
            Ran::Cut(seen) => {
                self.driver.under_way = Some((drive, seen));
                return Ok(read);
            }
            Ran::Whole(result) => result?,
        };
        let driver = &mut self.driver;
        driver.queue = queue;
        match done {
            Driven::Added(tokens, kick) => {
                driver.out.extend(tokens.into_iter().zip(first..));
                driver.mode = Mode::Working;
                self.kick |= kick;
            }
            Driven::Polled(token, written) => {
                let found = driver.out.iter().position(|(out, _)| *out == token);
                let (_, number) = driver.out.remove(found.ok_or(format!("token {token} came back and was not out"))?);
                let filled =
                    plan.features.contains(VirtioFeatures::IN_ORDER) && written == LENGTH * u32::from(plan.descriptors);
                if self.returned & 1 << number != 0 || !filled && written != u32::from(number) + 1 {
                    return Err(format!("buffer {number} came back with {written} bytes"));
                }
                self.returned |= 1 << number;
            }
            Driven::Empty => driver.mode = Mode::Empty,
            Driven::More(more) => {
                let sleeps = !more || plan.widened == Widened::DriverSleepsAnyway;
                driver.mode = if sleeps { Mode::Sleeping } else { Mode::Working };
            }
            Driven::CallsDisabled => driver.mode = Mode::Working,
        }
        Ok(read)
    }
}

impl Model for System {
    type Step = Step;

    fn successors(&self) -> Result<Vec<(Step, Self)>, String> {
        let mut all = Vec::new();
        for serve in self.device_choices() {
            self.accesses(Side::Device, Step::Device(serve), |next| next.serve(serve), &mut all)?;
        }
        for drive in self.driver_choices() {
            self.accesses(Side::Driver, Step::Driver(drive), |next| next.drive(drive), &mut all)?;
        }
        if self.kick && self.device.mode == Mode::Sleeping {
            let mut next = self.clone();
            (next.kick, next.device.mode) = (false, Mode::Woken);
            all.push((Step::Kick, next));
        }
        if self.call && self.driver.mode == Mode::Sleeping {
            let mut next = self.clone();
            (next.call, next.driver.mode) = (false, Mode::Woken);
            all.push((Step::Call, next));
        }
        Ok(all)
    }

    fn is_finished(&self) -> bool {
        self.driver_is_done()
            && self.device.held.is_empty()
            && self.device.mode == Mode::Sleeping
            && self.returned == self.finished
            && self.returned.count_ones() == u32::from(self.plan.buffers)
    }

    fn sometimes(&self, note: &mut dyn FnMut(&'static str)) {
        if self.device.mode == Mode::Sleeping && self.driver.mode == Mode::Sleeping {
            note("both sleep");
        }
        if self.device.held.len() > 1 {
            note("the device holds several");
        }
        if self.driver.out.len() as u16 * self.plan.descriptors == self.plan.size {
            note("the ring is full");
        }
        if self.finished & (self.finished + 1) != 0 {
            note("buffers are used out of order");
        }
        if self.device.mode != Mode::Sleeping && !self.kick && self.driver.added > self.device.popped {
            note("a kick is saved");
        }
    }
}
