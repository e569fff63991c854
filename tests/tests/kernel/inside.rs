//! What runs in the guest, as root on a kernel of its own.

mod net;
mod ring;
mod scsi;
mod vsock;
