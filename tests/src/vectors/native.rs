//! Payloads as this machine has them: the numbers of vhost-user are in the byte order of whoever speaks it, and all
//! recordings come from little-endian machines.

use super::{Channel, Direction};
use crate::wire::{self, Fixture, Layout, native};
use std::sync::LazyLock;

/// Fields of a GPU request: 64-bit numbers or 32-bit ones in front, then bytes.
const GPU_REQUESTS: [(u32, usize, usize); 9] =
    // Id, width and count of the numbers. DMABUF_SCANOUT2 is in no recording.
    [(2, 8, 1), (4, 4, 3), (5, 4, 3), (6, 4, 5), (7, 4, 3), (8, 4, 5), (9, 4, 10), (10, 4, 5), (11, 4, 1)];

/// All fixtures of both channels, made once.
static FORMS: LazyLock<[Vec<Fixture>; 2]> = LazyLock::new(|| [wire::all_frontend_forms(), wire::all_backend_forms()]);

/// The same payload from a machine of this one's byte order.
pub(super) fn payload(channel: Channel, direction: Direction, id: u32, recorded: &[u8]) -> Vec<u8> {
    let from_frontend = direction == Direction::FrontendToBackend;
    let (forms, is_request) = match channel {
        Channel::Main => (&FORMS[0], from_frontend),
        Channel::Backend => (&FORMS[1], !from_frontend),
        Channel::Gpu => return gpu(id, !from_frontend, recorded),
    };
    let forms = forms.iter().filter(|form| form.id == id);
    let layouts = forms.flat_map(|form| if is_request { vec![form.layout] } else { replies(form) });
    let mut fitting = layouts.filter_map(|layout| layout.native(recorded).ok());
    fitting.next().unwrap_or_else(|| panic!("request {id} of the {channel:?} channel: no layout for {recorded:02x?}"))
}

/// An acknowledgement may take the place of what the table has.
fn replies(form: &Fixture) -> Vec<Layout> {
    form.answers().iter().map(|answer| answer.layout).chain([Layout::U64]).collect()
}

fn gpu(id: u32, is_request: bool, recorded: &[u8]) -> Vec<u8> {
    let (width, count) = match (is_request, id) {
        (true, _) => {
            let row = GPU_REQUESTS.iter().find(|(known, ..)| *known == id);
            row.map_or((1, 0), |&(_, width, count)| (width, count))
        }
        (false, 1) => (8, 1),
        // The others are virtio-gpu's own, which are little-endian everywhere.
        (false, _) => (1, 0),
    };
    let (numbers, rest) = recorded.split_at(width * count);
    [numbers.chunks(width).flat_map(native).collect(), rest.to_vec()].concat()
}
