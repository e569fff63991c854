//! A Linux guest uses our disk through rings of every form that QEMU can be asked for: split and packed, with and without
//! event index and indirect tables, one queue and four.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use vhost_tests::guest::Guest;
use vhost_tests::program::{Running, built};

/// For a whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
const GUEST_LIMIT: Duration = Duration::from_secs(300);
const BACKEND_LIMIT: Duration = Duration::from_secs(20);

/// Each disk is written from its start: four writers, one MiB each.
const WRITTEN: usize = 4 << 20;

/// The bits of a virtio device's features that a form decides (`/sys/bus/virtio/devices/*/features`, lowest bit first).
const INDIRECT: usize = 28;
const EVENT_INDEX: usize = 29;
const PACKED: usize = 34;

#[derive(Clone, Copy, Debug)]
struct Form {
    packed: bool,
    event_index: bool,
    indirect: bool,
    queues: usize,
}

fn forms() -> Vec<Form> {
    let both = [false, true];
    let mut forms = Vec::new();
    for packed in both {
        for event_index in both {
            for indirect in both {
                forms.extend([1, 4].map(|queues| Form { packed, event_index, indirect, queues }));
            }
        }
    }
    forms
}

impl Form {
    fn device(self) -> String {
        let on = |yes: bool| if yes { "on" } else { "off" };
        format!(
            "vhost-user-blk-pci,num-queues={},packed={},event_idx={},indirect_desc={}",
            self.queues,
            on(self.packed),
            on(self.event_index),
            on(self.indirect)
        )
    }
}

#[test]
fn a_guest_uses_rings_of_every_form() {
    let Some(mut guest) = Guest::find() else { return };
    let program = built("vhost-std", "vhost-user");
    let folder = tempfile::tempdir().unwrap();
    guest = guest.processors(4).module("virtio_blk");
    let mut disks = Vec::new();
    for (number, form) in forms().into_iter().enumerate() {
        let (image, socket) =
            (folder.path().join(format!("{number}.img")), folder.path().join(format!("{number}.sock")));
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let backend = serve(&program, &image, &socket, form.queues);
        guest = guest.vhost_user(&form.device(), &socket);
        disks.push((form, image, backend));
    }

    let report = guest.boot(WRITE_AND_READ).finish(GUEST_LIMIT);

    assert_eq!(report.status, 0, "the script's status");
    assert!(!report.console.contains("I/O error"), "the guest complains of its disks:\n{}", report.console);
    for (name, (form, image, mut backend)) in ('a'..='p').zip(disks) {
        let features = report.value(&format!("vd{name} features")).to_owned();
        let has = |bit: usize| features.as_bytes().get(bit) == Some(&b'1');
        let negotiated = (has(PACKED), has(EVENT_INDEX), has(INDIRECT));
        assert_eq!(negotiated, (form.packed, form.event_index, form.indirect), "{form:?}: {features}");
        assert_eq!(report.value(&format!("vd{name} queues")), form.queues.to_string(), "{form:?}");
        assert_eq!(report.value(&format!("vd{name} sum")), report.value("sum"), "{form:?}: read back by the guest");
        let status = backend.terminate(BACKEND_LIMIT);
        assert!(status.success(), "{form:?}: {status}: {}", backend.output());
        assert_eq!(sum_of_start(&image), report.value("sum"), "{form:?}: the image on the host");
    }
}

/// `direct` keeps the page cache out. The writers are bound to a processor each, and so to a queue where there are four.
const WRITE_AND_READ: &str = r#"
dd if=/dev/urandom of=/data bs=1M count=4
echo "sum $(sha256sum </data | cut -d ' ' -f 1)"
for letter in a b c d e f g h i j k l m n o p; do
    disk=vd$letter
    echo "$disk features $(cat /sys/block/$disk/device/features)"
    echo "$disk queues $(ls /sys/block/$disk/mq | wc -l)"
    for part in 0 1 2 3; do
        taskset -c $part dd if=/data of=/dev/$disk bs=64k skip=$((part * 16)) seek=$((part * 16)) count=16 oflag=direct conv=notrunc &
    done
    wait
    for part in 0 1 2 3; do
        taskset -c $part dd if=/dev/$disk of=/read$part bs=64k skip=$((part * 16)) count=16 iflag=direct &
    done
    wait
    echo "$disk sum $(cat /read0 /read1 /read2 /read3 | sha256sum | cut -d ' ' -f 1)"
done
"#;

fn serve(program: &Path, image: &Path, socket: &Path, queues: usize) -> Running {
    let mut command = Command::new(program);
    command.arg("blk").arg(format!("--socket-path={}", socket.display()));
    command.arg(format!("--blk-file={}", image.display())).arg(format!("--num-queues={queues}"));
    let mut backend = Running::start(&mut command);
    backend.wait_for_socket(socket, BACKEND_LIMIT);
    backend
}

fn sum_of_start(image: &Path) -> String {
    let script = format!("head -c {WRITTEN} '{}' | sha256sum", image.display());
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}
