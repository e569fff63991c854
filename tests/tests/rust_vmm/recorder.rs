//! A back-end of rust-vmm's that takes everything and writes down what it is told.

use std::fs::File;
use std::io::Error as IoError;

use rustix::fs::fstat;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures};
use vhost_tests::dialog::{event, memory};
use vhost_tests::wire::feature;
use vm_memory::ByteValued;

/// What this back-end offers: rust-vmm's own names for the bits that it has.
pub(crate) const VIRTIO: u64 = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::LOG_ALL;

/// The protocol features that it offers.
pub(crate) const PROTOCOL: u64 = feature::MQ
    | feature::LOG_SHMFD
    | feature::REPLY_ACK
    | feature::BACKEND_REQ
    | feature::PAGEFAULT
    | feature::CONFIG
    | feature::BACKEND_SEND_FD
    | feature::INFLIGHT_SHMFD
    | feature::RESET_DEVICE
    | feature::CONFIGURE_MEM_SLOTS
    | feature::SHARED_OBJECT
    | feature::DEVICE_STATE
    | feature::SHMEM;

/// Rings that it has.
pub(crate) const RINGS: u64 = 2;

/// Memory regions that it takes one by one.
pub(crate) const SLOTS: u64 = 3;

/// Bytes that it maps memory at, in postcopy.
pub(crate) const MAPPED_AT: u64 = 0x5555_0000_0000;

/// What it was told, in order.
pub(crate) struct Recorder {
    pub(crate) entries: Vec<String>,
    /// The channel for requests of its own.
    pub(crate) channel: Option<Backend>,
    config: Vec<u8>,
}

impl Recorder {
    /// With these bytes of configuration space.
    pub(crate) fn new(config: &[u8]) -> Self {
        Self { entries: Vec::new(), channel: None, config: config.to_vec() }
    }

    fn note(&mut self, entry: String) -> Result<()> {
        self.entries.push(entry);
        Ok(())
    }

    fn note_ring(&mut self, index: u32, entry: String) -> Result<()> {
        if u64::from(index) >= RINGS { refused("no such ring") } else { self.note(format!("ring {index}: {entry}")) }
    }
}

/// The size of a file, by which the tests tell files apart.
fn size(file: &File) -> i64 {
    fstat(file).unwrap().st_size
}

fn region(region: &VhostUserMemoryRegion, file: &File) -> String {
    let [guest, length, user, offset] =
        [region.guest_phys_addr, region.memory_size, region.user_addr, region.mmap_offset];
    format!("{guest:#x}+{length:#x} at {user:#x}, offset {offset:#x} of {:#x}", size(file))
}

fn presence(file: Option<File>) -> &'static str {
    if file.is_some() { "a descriptor" } else { "none" }
}

fn refused<T>(text: &'static str) -> Result<T> {
    Err(Error::ReqHandlerError(IoError::other(text)))
}

impl VhostUserBackendReqHandlerMut for Recorder {
    fn set_owner(&mut self) -> Result<()> {
        self.note("owner".to_owned())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.note("reset owner".to_owned())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.note("reset device".to_owned())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(VIRTIO)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("features {features:#x}"))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let all = Vec::from_iter(regions.iter().zip(&files).map(|(one, file)| region(one, file)));
        self.note(format!("memory [{}], postcopy {postcopy:?}", all.join("; ")))?;
        let bases = (0..regions.len() as u64).map(|at| MAPPED_AT + (at << 32));
        Ok((postcopy == Some(true)).then(|| bases.collect()))
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.note_ring(index, format!("size {num}"))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let flags = flags.bits();
        self.note_ring(index, format!("{descriptor:#x} {used:#x} {available:#x} log {log:#x} flags {flags}"))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.note_ring(index, format!("base {base}"))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.note_ring(index, "stop".to_owned())?;
        Ok(VhostUserVringState::new(index, 77))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.note_ring(index.into(), format!("kick by {}", presence(file)))
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.note_ring(index.into(), format!("call by {}", presence(file)))
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.note_ring(index.into(), format!("error by {}", presence(file)))
    }

    /// All that it has something to do for.
    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::from_bits_truncate(PROTOCOL))
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("protocol {features:#x}"))
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(RINGS)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.note_ring(index, if enable { "enable" } else { "disable" }.to_owned())
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let part = offset as usize..(offset + size) as usize;
        self.config.get(part).map_or_else(|| refused("past the end"), |part| Ok(part.to_vec()))
    }

    fn set_config(&mut self, offset: u32, data: &[u8], flags: VhostUserConfigFlags) -> Result<()> {
        let part = offset as usize..offset as usize + data.len();
        let Some(part) = self.config.get_mut(part) else { return refused("past the end") };
        part.copy_from_slice(data);
        self.note(format!("configuration {data:?} at {offset}, flags {:#x}", flags.bits()))
    }

    fn set_backend_req_fd(&mut self, channel: Backend) {
        channel.set_reply_ack_flag(true);
        channel.set_shared_object_flag(true);
        channel.set_shmem_flag(true);
        self.channel = Some(channel);
        self.entries.push("channel".to_owned());
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        self.note("socket for displays".to_owned())
    }

    fn get_shared_object(&mut self, object: VhostUserSharedMsg) -> Result<File> {
        if object.as_slice()[0] == 1 { Ok(memory(0x7000).into()) } else { refused("no such object") }
    }

    fn get_inflight_fd(&mut self, record: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, size) = (record.num_queues, record.queue_size);
        self.note(format!("record for {queues} rings of {size}"))?;
        Ok((VhostUserInflight::new(0x2000, 0x1000, queues, size), memory(0x3000).into()))
    }

    fn set_inflight_fd(&mut self, record: &VhostUserInflight, file: File) -> Result<()> {
        let (length, offset, queues) = (record.mmap_size, record.mmap_offset, record.num_queues);
        self.note(format!("record {length:#x} at {offset:#x} of {:#x} for {queues} rings", size(&file)))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(SLOTS)
    }

    fn add_mem_region(
        &mut self,
        added: &VhostUserSingleMemoryRegion,
        file: File,
        postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        self.note(format!("add {}, postcopy {postcopy:?}", region(added, &file)))?;
        Ok((postcopy == Some(true)).then_some(MAPPED_AT))
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, length) = (region.guest_phys_addr, region.memory_size);
        self.note(format!("remove {guest:#x}+{length:#x}"))
    }

    /// Saves through what it was given, loads through a descriptor of its own.
    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        file: File,
    ) -> Result<Option<File>> {
        self.note(format!("state {direction:?} {phase:?} over {:#x}", size(&file)))?;
        Ok(matches!(direction, VhostTransferStateDirection::LOAD).then(|| event().into()))
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.note("state checked".to_owned())
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Ok(VhostUserShMemConfig::new(2, &[0x10_0000, 0, 0x20_0000]))
    }

    fn postcopy_advice(&mut self) -> Result<File> {
        self.note("postcopy advised".to_owned())?;
        Ok(event().into())
    }

    fn postcopy_listen(&mut self) -> Result<()> {
        self.note("postcopy listens".to_owned())
    }

    fn postcopy_end(&mut self) -> Result<()> {
        self.note("postcopy ended".to_owned())
    }

    fn postcopy_ack_mem_regions(&mut self) -> Result<()> {
        self.note("postcopy memory acknowledged".to_owned())
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let (length, offset) = (log.mmap_size, log.mmap_offset);
        self.note(format!("log {length:#x} at {offset:#x} of {:#x}", size(&file)))
    }
}
