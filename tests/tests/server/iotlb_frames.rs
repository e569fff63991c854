//! A frame for several buffers behind an IOMMU: it waits until all of them can be reached.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use vhost_std::net::{NetDevice, NetLink, NetOptions};
use vhost_std::server::{BackendServer, ServerOptions};
use vhost_tests::driver::{BLOCK, GuestMemory, Ring, WRITE};

use crate::support::ALL_THREADS;
use crate::support::iommu::{Iommu, PAGE, READ_WRITE, SHIFT};

/// `VIRTIO_NET_F_MRG_RXBUF`
const MERGED: u64 = 1 << 15;
/// Bytes of a header.
const HEADER: usize = 12;

fn frame(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

#[test]
fn a_frame_is_whole_although_its_buffers_become_known_one_after_another() {
    for threads in ALL_THREADS {
        let (network, link) = UnixDatagram::pair().unwrap();
        let device = NetDevice::new(vec![NetLink::datagram(link.into()).unwrap()], &NetOptions::default()).unwrap();
        let mut options = ServerOptions::default();
        options.threads = threads;
        let mut server = BackendServer::new(Arc::new(device), options).unwrap();
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut iommu = Iommu::with_features(&mut server, &memory, MERGED);
        iommu.start(&ring);
        let buffers = memory.region().guest + BLOCK;
        let place = |head: u16| buffers + PAGE * u64::from(head);
        for head in 0..5 {
            ring.descriptor(head, (place(head) + SHIFT, 1000), WRITE, 0);
            ring.offer(head);
        }
        let first = frame(2500);
        network.send(&first).unwrap();
        network.send(&[7; 900]).unwrap();
        ring.kick();
        let mut found = Vec::new();
        while found.len() < 3 {
            let (address, _) = iommu.asked();
            let page = address & !(PAGE - 1);
            assert_eq!(ring.used_index(), 0, "{threads:?}: {found:x?}");
            found.extend((page >= buffers + SHIFT).then_some(page));
            iommu.map(page, page - SHIFT, READ_WRITE);
        }
        assert_eq!(found, [0, 1, 2].map(|head| place(head) + SHIFT));
        let used = [(); 3].map(|()| iommu.bench.wait_used(&mut ring));
        assert_eq!(used, [(0, 1000), (1, 1000), (2, 512)]);
        let received = [0, 1, 2].map(|head| memory.read(place(head), 1000)).concat();
        assert_eq!(received[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
        assert!(received[HEADER..][..2500] == first);
        // The next one has a buffer of its own, that nothing has touched.
        assert_eq!(iommu.serve(&mut ring).0, (3, 912));
        assert!(memory.read(place(3) + HEADER as u64, 900) == [7; 900]);
    }
}
