//! Our back-end's machine with a device that takes everything and writes down what it is told, in the words of rust-vmm's.

use core::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::fs::fstat;
use vhost_core::wire::log::LogBase;
use vhost_core::wire::{config::Config, inflight::Inflight, migration::Transfer, shared::SharedMemoryConfig};
use vhost_core::{
    Answered, Backend, BackendConfig, Channel, Frame, FrontendReply, FrontendRequest, Incoming, MAX_MESSAGE,
    MemoryRegion, MemoryTable, Postcopy, ProtocolFeatures, UserAddress, Verdict, VirtioFeatures,
    wire::vring::VringState,
};
use vhost_std::deadline::Deadline;
use vhost_std::endpoint::{Endpoint, Message};
use vhost_std::socket::Socket;
use vhost_tests::dialog::{PATIENCE, event, memory};
use zerocopy::IntoBytes;

use crate::conversation::Served;
use crate::recorder::{MAPPED_AT, PROTOCOL, RINGS, SLOTS, VIRTIO};

/// Bytes of configuration space.
pub(crate) const CONFIG: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < 64 {
        bytes[at] = 0x40 + at as u8;
        at += 1;
    }
    bytes
};

type Machine = Backend<{ RINGS as usize }, 8, 4>;

/// Our machine, and its device.
pub(crate) struct OurMachine {
    endpoint: Endpoint,
    machine: Machine,
    device: Device,
}

/// A device that takes everything that rust-vmm's recorder takes.
#[derive(Default)]
struct Device {
    told: Vec<String>,
    config: Vec<u8>,
}

/// Answers that are more than a number.
#[derive(Default)]
struct Room {
    config: Vec<u8>,
    regions: Vec<MemoryRegion>,
}

impl OurMachine {
    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        let (features, protocol) =
            (VirtioFeatures::from_bits_retain(VIRTIO), ProtocolFeatures::from_bits_retain(PROTOCOL));
        let mut config = BackendConfig::new(features, protocol, RINGS as u16);
        config.memory_slots = SLOTS as u16;
        let device = Device { told: Vec::new(), config: CONFIG.to_vec() };
        let endpoint = Endpoint::new(Socket::from(socket), Channel::Frontend);
        Self { endpoint, machine: Machine::new(config), device }
    }
}

impl Served for OurMachine {
    fn serve(&mut self) -> bool {
        let mut out = [0; MAX_MESSAGE];
        loop {
            let frame = match self.endpoint.try_receive() {
                Ok(Message::NotYet) => return true,
                Ok(Message::Closed) | Err(_) => return false,
                Ok(Message::Frame(frame)) => frame,
            };
            match answer(&mut self.machine, &mut self.device, frame, &mut out) {
                Answered::Silent => {}
                Answered::Send(message) => self.endpoint.send(&message, Deadline::after(PATIENCE)).unwrap(),
                Answered::Close => return false,
            }
        }
    }

    fn take_told(&mut self) -> Vec<String> {
        core::mem::take(&mut self.device.told)
    }
}

fn answer<'o>(
    machine: &mut Machine,
    device: &mut Device,
    frame: Frame<'_, OwnedFd>,
    out: &'o mut [u8],
) -> Answered<'o, OwnedFd> {
    let mut room = Room::default();
    let reply = match machine.handle_request(frame) {
        Ok(Incoming::PostcopyMemoryMapped) => {
            device.told.push("postcopy memory acknowledged".to_owned());
            return Answered::Silent;
        }
        Ok(Incoming::Request(request)) => match machine.own_answer() {
            Some(reply) => Ok(reply),
            None => device.carry_out(request, is_postcopy(machine), &mut room),
        },
        Err(rejection) if rejection.verdict() == Verdict::Refuse => Err(()),
        Err(_) => return Answered::Close,
    };
    machine.answer(reply.unwrap_or(FrontendReply::Refused(NonZeroU64::MIN)), out).unwrap()
}

/// Whether new memory is answered with where it is.
fn is_postcopy(machine: &Machine) -> bool {
    matches!(machine.session().postcopy(), Postcopy::Listening | Postcopy::Answered)
}

fn size(file: &OwnedFd) -> i64 {
    fstat(file).unwrap().st_size
}

fn place(region: &MemoryRegion, file: &OwnedFd) -> String {
    let MemoryRegion { guest_address, size: length, user_address, mmap_offset, .. } = region;
    format!("{:#x}+{length:#x} at {:#x}, offset {mmap_offset:#x} of {:#x}", guest_address.0, user_address.0, size(file))
}

fn presence(file: &Option<OwnedFd>) -> &'static str {
    if file.is_some() { "a descriptor" } else { "none" }
}

impl Device {
    fn carry_out<'b>(
        &mut self,
        request: FrontendRequest<'_, OwnedFd>,
        listening: bool,
        room: &'b mut Room,
    ) -> Result<FrontendReply<'b, OwnedFd>, ()> {
        use FrontendRequest as Request;
        let mapped = |at: u64, region: MemoryRegion| MemoryRegion {
            user_address: UserAddress(MAPPED_AT + (at << 32)),
            ..region
        };
        let mut reply = FrontendReply::Done;
        let entry = match request {
            Request::SetOwner => "owner".to_owned(),
            Request::ResetOwner => "reset owner".to_owned(),
            Request::ResetDevice => "reset device".to_owned(),
            Request::SetFeatures(features) => format!("features {:#x}", features.bits()),
            Request::SetProtocolFeatures(features) => format!("protocol {:#x}", features.bits()),
            Request::SetMemTable(regions, files) => {
                let all = Vec::from_iter(regions.iter().zip(&files).map(|(one, file)| place(&one, file)));
                if listening {
                    room.regions = (0..).zip(regions.iter()).map(|(at, region)| mapped(at, region)).collect();
                    reply = FrontendReply::SetMemTable(MemoryTable::new(&room.regions));
                }
                format!("memory [{}], postcopy Some({listening})", all.join("; "))
            }
            Request::AddMemReg(region, file) => {
                if listening {
                    reply = FrontendReply::AddMemReg(mapped(0, region));
                }
                format!("add {}, postcopy Some({listening})", place(&region, &file))
            }
            Request::RemMemReg(region) => format!("remove {:#x}+{:#x}", region.guest_address.0, region.size),
            Request::SetVringNum(state) => format!("ring {}: size {}", state.index(), state.num()),
            Request::SetVringAddr(at) => format!(
                "ring {}: {:#x} {:#x} {:#x} log {:#x} flags {}",
                at.index(),
                at.descriptor().0,
                at.used().0,
                at.available().0,
                at.log().0,
                at.flags()
            ),
            Request::SetVringBase(state) => format!("ring {}: base {}", state.index(), state.num()),
            Request::GetVringBase(state) => {
                reply = FrontendReply::GetVringBase(VringState::new(state.index(), 77));
                format!("ring {}: stop", state.index())
            }
            Request::SetVringEnable(state) => {
                format!("ring {}: {}", state.index(), if state.num() == 1 { "enable" } else { "disable" })
            }
            Request::SetVringKick(target, file) => format!("ring {}: kick by {}", target.index(), presence(&file)),
            Request::SetVringCall(target, file) => format!("ring {}: call by {}", target.index(), presence(&file)),
            Request::SetVringErr(target, file) => format!("ring {}: error by {}", target.index(), presence(&file)),
            Request::GetConfig(wanted) => {
                let end = wanted.offset as usize + wanted.data.len();
                room.config = self.config.get(wanted.offset as usize..end).ok_or(())?.to_vec();
                let config = Config { offset: wanted.offset, flags: wanted.flags, data: &room.config };
                return Ok(FrontendReply::GetConfig(config));
            }
            Request::SetConfig(written) => {
                let part = written.offset as usize..written.offset as usize + written.data.len();
                self.config.get_mut(part).ok_or(())?.copy_from_slice(written.data);
                format!("configuration {:?} at {}, flags {:#x}", written.data, written.offset, written.flags)
            }
            Request::SetBackendReqFd(_) => "channel".to_owned(),
            Request::GpuSetSocket(_) => "socket for displays".to_owned(),
            Request::GetSharedObject(Some(object)) if object.as_bytes()[0] == 1 => {
                return Ok(FrontendReply::GetSharedObject(Some(memory(0x7000))));
            }
            Request::GetInflightFd(wanted) => {
                let (queues, size) = (wanted.num_queues(), wanted.queue_size());
                let record = Inflight::new(0x2000, 0x1000, queues, size);
                reply = FrontendReply::GetInflightFd(record, Some(memory(0x3000)));
                format!("record for {queues} rings of {size}")
            }
            Request::SetInflightFd(record, file) => {
                let (length, offset, queues) = (record.mmap_size(), record.mmap_offset(), record.num_queues());
                format!("record {length:#x} at {offset:#x} of {:#x} for {queues} rings", size(&file))
            }
            Request::SetLogBase(LogBase::Shared(log), Some(file)) => {
                format!("log {:#x} at {:#x} of {:#x}", log.size(), log.offset(), size(&file))
            }
            Request::SetDeviceStateFd(wanted, file) => {
                let is_load = wanted.direction() == Transfer::LOAD;
                reply = match is_load {
                    true => FrontendReply::SetDeviceStateFd(0, Some(event())),
                    false => FrontendReply::SetDeviceStateFd(Transfer::NO_DESCRIPTOR, None),
                };
                format!("state {} STOPPED over {:#x}", if is_load { "LOAD" } else { "SAVE" }, size(&file))
            }
            Request::CheckDeviceState => "state checked".to_owned(),
            Request::GetShmemConfig => {
                return Ok(FrontendReply::GetShmemConfig(SharedMemoryConfig::new(&[0x10_0000, 0, 0x20_0000])));
            }
            Request::PostcopyAdvise => {
                reply = FrontendReply::PostcopyAdvise(Some(event()));
                "postcopy advised".to_owned()
            }
            Request::PostcopyListen => "postcopy listens".to_owned(),
            Request::PostcopyEnd => "postcopy ended".to_owned(),
            Request::SetLogBase(..) => "log at an address".to_owned(),
            Request::SetLogFd(_) => "event for the log".to_owned(),
            _ => return Err(()),
        };
        self.told.push(entry);
        Ok(reply)
    }
}
