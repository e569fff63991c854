//! What requests do to guest memory: at once, or during postcopy once the front-end knows where it is.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost_core::{FrontendReply, Handles, MemoryRegion, MemoryTable as RegionList, Postcopy as Stage};

use super::dispatch::{Agreed, Dispatch, Reason};
use crate::memory::{MappedRegion, MemoryTable};

impl Dispatch<'_> {
    /// `SET_MEM_TABLE`; during postcopy the answer says where the regions are, and lies in `answer`.
    pub(super) fn replace_memory<'b>(
        &mut self,
        regions: &RegionList<'_>,
        handles: Handles<OwnedFd>,
        session: &Agreed,
        answer: &'b mut Vec<MemoryRegion>,
    ) -> Result<FrontendReply<'b, OwnedFd>, Reason> {
        let mapped =
            regions.iter().zip(handles).map(|(region, handle)| MappedRegion::new(region, handle).map(Arc::new));
        let mapped = mapped.collect::<Result<Vec<_>, _>>()?;
        if !is_postcopy(session) {
            self.control(session).set_memory(MemoryTable::new(mapped)?);
            return Ok(FrontendReply::Done);
        }
        for region in &mapped {
            answer.push(self.postcopy.register(region)?);
        }
        self.postcopy.keep(MemoryTable::new(mapped)?);
        Ok(FrontendReply::SetMemTable(RegionList::new(answer)))
    }

    /// `ADD_MEM_REG`, in the same way.
    pub(super) fn add_memory<'b>(
        &mut self,
        region: MemoryRegion,
        handle: OwnedFd,
        session: &Agreed,
    ) -> Result<FrontendReply<'b, OwnedFd>, Reason> {
        let mapped = Arc::new(MappedRegion::new(region, handle)?);
        if !is_postcopy(session) {
            let memory = self.memory().insert(mapped)?;
            self.control(session).set_memory(memory);
            return Ok(FrontendReply::Done);
        }
        let answer = self.postcopy.register(&mapped)?;
        let memory = self.memory().insert(mapped)?;
        self.postcopy.keep(memory);
        Ok(FrontendReply::AddMemReg(answer))
    }

    /// `REM_MEM_REG`. What is taken away is used no more at once.
    pub(super) fn remove_memory(&mut self, region: &MemoryRegion, session: &Agreed) -> Result<(), Reason> {
        let memory = self.memory().remove(region)?;
        if let Some(awaited) = self.postcopy.acknowledged() {
            self.postcopy.keep(awaited.remove(region)?);
            if let Ok(used) = self.guest.memory().remove(region) {
                self.control(session).set_memory(used);
            }
            return Ok(());
        }
        self.control(session).set_memory(memory);
        Ok(())
    }

    /// The front-end provides the pages of what it was told of, from now on.
    pub(super) fn memory_acknowledged(&mut self, session: &Agreed) {
        if let Some(memory) = self.postcopy.acknowledged() {
            self.control(session).set_memory(memory);
        }
    }

    /// All memory there is, whether it can be used already or not.
    fn memory(&self) -> MemoryTable {
        self.postcopy.awaited().cloned().unwrap_or_else(|| self.guest.memory())
    }
}

/// Whether new memory is answered with where it is.
fn is_postcopy(session: &Agreed) -> bool {
    matches!(session.postcopy(), Stage::Listening | Stage::Answered)
}
