//! What the inspector says of files that qemu-img (Debian's qemu-utils) makes, by every option that matters, and what of
//! disks that sfdisk (util-linux) divides.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use tegula_domain::inspect::{Format, Inspection, InspectionRules, Inspector};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (program, arguments) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path());
        let output = command.output();
        let output = output.expect("qemu-img runs: it is in Debian's qemu-utils");
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a disk of 5 MiB with something in it, and a file of it in some format.
    fn converted(&self, options: &str) -> (Inspection, u64) {
        let source = self.0.path().join("source.raw");
        let mut disk = File::create(&source).unwrap();
        disk.set_len(5 << 20).unwrap();
        for piece in 0..40_u8 {
            disk.write_all(&[piece; 9000]).unwrap();
        }
        drop(disk);
        self.run(&format!(
            "qemu-img convert -f raw {options} source.raw made"
        ));
        let format = options.split_whitespace().nth(1).unwrap();
        let info = self.run(&format!("qemu-img info -f {format} --output=json made"));
        (self.inspect("made"), virtual_size(&info))
    }

    /// Reads a file in pieces of no particular length.
    fn inspect(&self, name: &str) -> Inspection {
        inspect(&self.0.path().join(name))
    }
}

fn inspect(path: &Path) -> Inspection {
    let mut file = File::open(path).unwrap();
    let mut inspector = Inspector::new();
    let mut piece = vec![0; 77_777];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return inspector.finish(),
            bytes => inspector.push(piece.get(..bytes).unwrap()),
        }
    }
}

/// The first one: of the disk, not of the files below it.
fn virtual_size(info: &str) -> u64 {
    let after = info.rsplit("\"virtual-size\": ").next().unwrap();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

fn judge(inspection: &Inspection, claimed: &str) -> Result<Option<u64>, String> {
    let judged = inspection.judge(claimed, &InspectionRules::default());
    judged
        .map(|judgement| judgement.virtual_size)
        .map_err(|refusal| refusal.to_string())
}

#[test]
fn what_qemu_img_makes_is_known_and_as_long_as_it_says() {
    let place = Place::new();
    for (options, claimed) in [
        ("-O qcow2", "qcow2"),
        ("-O qcow2 -o compat=0.10", "qcow2"),
        ("-O qcow2 -c", "qcow2"),
        ("-O qcow2 -c -o compression_type=zstd", "qcow2"),
        ("-O qcow2 -o cluster_size=512", "qcow2"),
        ("-O qcow2 -o cluster_size=2M,refcount_bits=1", "qcow2"),
        (
            "-O qcow2 -o lazy_refcounts=on,preallocation=metadata",
            "qcow2",
        ),
        ("-O vpc", "vhd"),
        ("-O vpc -o subformat=dynamic,force_size=on", "vhd"),
        ("-O vpc -o subformat=fixed,force_size=on", "vhd"),
        ("-O vhdx", "vhdx"),
        ("-O vhdx -o subformat=fixed,block_size=1M", "vhdx"),
        ("-O vmdk", "vmdk"),
        ("-O vmdk -o subformat=monolithicSparse,hwversion=6", "vmdk"),
        ("-O vmdk -o subformat=streamOptimized", "vmdk"),
        ("-O vdi", "vdi"),
        ("-O vdi -o static=on", "vdi"),
        ("-O raw", "raw"),
    ] {
        let (inspection, disk) = place.converted(options);
        assert_eq!(judge(&inspection, claimed), Ok(Some(disk)), "{options}");
        let found: Vec<_> = inspection
            .found
            .iter()
            .map(|found| found.format.as_str())
            .collect();
        let expected = if claimed == "raw" {
            vec![]
        } else {
            vec![claimed]
        };
        assert_eq!(found, expected, "{options}");
    }
}

#[test]
fn files_that_stand_on_others_are_refused() {
    let place = Place::new();
    place.run("qemu-img create -f qcow2 base.qcow2 1M");
    place.run("qemu-img create -f vpc base.vhd 1M");
    place.run("qemu-img create -f vmdk base.vmdk 1M");
    place.run("qemu-img create -f raw base.raw 1M");
    for (line, file, claimed, reason) in [
        (
            "create -f qcow2 -b base.qcow2 -F qcow2 over.qcow2",
            "over.qcow2",
            "qcow2",
            "backing file",
        ),
        (
            "create -f qcow2 -o data_file=data.raw,data_file_raw=on split.qcow2 1M",
            "split.qcow2",
            "qcow2",
            "another file",
        ),
        (
            "create -f qcow2 -o extended_l2=on fine.qcow2 1M",
            "fine.qcow2",
            "qcow2",
            "features",
        ),
        ("create -f qed old.qed 1M", "old.qed", "qed", "not accepted"),
        (
            "create -f vmdk -b base.vmdk -F vmdk over.vmdk",
            "over.vmdk",
            "vmdk",
            "parentCID",
        ),
        (
            "create -f vmdk -o subformat=monolithicFlat flat.vmdk 1M",
            "flat.vmdk",
            "vmdk",
            "descriptor alone",
        ),
        (
            "create -f vmdk -o subformat=twoGbMaxExtentSparse two.vmdk 1M",
            "two.vmdk",
            "vmdk",
            "descriptor alone",
        ),
    ] {
        place.run(&format!("qemu-img {line}"));
        let inspection = place.inspect(file);
        for claimed in [claimed, "raw"] {
            let text = judge(&inspection, claimed).unwrap_err();
            assert!(text.contains(reason), "{line}: {text}");
        }
    }
}

#[test]
fn an_encrypted_disk_is_known_by_its_header() {
    let place = Place::new();
    place.run(
        "qemu-img create -f luks --object secret,id=key,data=a-long-enough-secret \
         -o key-secret=key,iter-time=10 disk.luks 1M",
    );
    let inspection = place.inspect("disk.luks");
    assert_eq!(judge(&inspection, "luks"), Ok(Some(1 << 20)));
    assert_eq!(judge(&inspection, "raw"), Ok(Some(inspection.bytes)));
}

#[test]
fn disks_that_are_divided_are_known_by_their_table() {
    for label in ["dos", "gpt"] {
        let place = Place::new();
        let path = place.0.path().join("disk.raw");
        File::create(&path).unwrap().set_len(8 << 20).unwrap();
        let mut sfdisk = Command::new("sfdisk")
            .arg("--quiet")
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk runs: it is in Debian's fdisk");
        let table = format!("label: {label}\nsize=2MiB\nsize=3MiB\n");
        let mut input = sfdisk.stdin.take().unwrap();
        input.write_all(table.as_bytes()).unwrap();
        drop(input);
        assert!(sfdisk.wait().unwrap().success());
        let inspection = inspect(&path);
        assert_eq!(
            inspection.found.first().unwrap().format,
            Format::Gpt,
            "{label}"
        );
        assert_eq!(judge(&inspection, "raw"), Ok(Some(8 << 20)), "{label}");
        assert_eq!(judge(&inspection, "gpt"), Ok(Some(8 << 20)), "{label}");
    }
}
