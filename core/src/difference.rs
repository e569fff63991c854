//! Where a reply contradicts its request: neither side sends or takes one that does.

use crate::{
    memory_map::RegionExtent,
    session::Effect,
    wire::{frontend_request::FrontendReply, memory::MemoryRegion},
};

/// What differs, as the request has it and as the reply has it.
#[derive(Debug)]
pub(crate) enum Difference {
    Ring {
        expected: u32,
        found: u32,
    },
    /// Bytes of the configuration.
    Size {
        expected: usize,
        found: usize,
    },
    /// How many memory regions there are.
    Regions {
        expected: usize,
        found: usize,
    },
    Region {
        expected: RegionExtent,
        found: RegionExtent,
    },
}

/// Where a reply differs from the request of this effect that it answers; `table` has the regions of a request that
/// replaces memory.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn difference<H>(
    reply: &FrontendReply<'_, H>,
    effect: &Effect,
    table: &[RegionExtent],
) -> Option<Difference> {
    match (reply, effect) {
        (FrontendReply::GetVringBase(state), Effect::Ring { index, .. }) => {
            let (expected, found) = (u32::from(*index), state.index());
            (expected != found).then_some(Difference::Ring { expected, found })
        }
        (FrontendReply::GetConfig(config), Effect::ReadConfig(size)) => {
            let (expected, found) = (usize::from(*size), config.data.len());
            (expected != found).then_some(Difference::Size { expected, found })
        }
        (FrontendReply::SetMemTable(regions), Effect::ReplaceMemory) => {
            let (expected, found) = (table.len(), regions.len());
            if expected != found {
                return Some(Difference::Regions { expected, found });
            }
            for (at, expected) in table.iter().enumerate() {
                if let Some(found) = &regions.get(at)
                    && !is_same(expected, found)
                {
                    return of_region(expected, found);
                }
            }
            None
        }
        (FrontendReply::AddMemReg(found), Effect::AddRegion(expected)) if !is_same(expected, found) => {
            of_region(expected, found)
        }
        _ => None,
    }
}

/// Whether a region comes back as it was shared, but for its address in the back-end.
fn is_same(expected: &RegionExtent, found: &MemoryRegion) -> bool {
    found.guest_address == expected.guest_address && found.size == expected.size
}

#[cold]
#[inline(never)]
fn of_region(expected: &RegionExtent, found: &MemoryRegion) -> Option<Difference> {
    Some(Difference::Region { expected: *expected, found: RegionExtent::from(found) })
}
