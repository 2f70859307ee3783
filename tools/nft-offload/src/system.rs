// SPDX-License-Identifier: GPL-2.0

//! What files and programs of this machine say: modules, settings, nft.

use std::{fs, path::Path, process::Command};

pub const MODULE: &str = "nft_offload";
pub const C_MODULE: &str = "nf_flow_table_inet";

pub fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

/// A file of one line or a few; nothing if there is none, or it may not be read.
pub fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_string())
}

/// A setting of this network namespace by its name in /proc/sys, with slashes.
pub fn sysctl(name: &str) -> Option<String> {
    read(&format!("/proc/sys/{name}"))
}

pub fn sysctl_number(name: &str) -> Option<u64> {
    sysctl(name)?.parse().ok()
}

/// A parameter of the module, if root may read it.
pub fn parameter(name: &str) -> Option<String> {
    read(&format!("/sys/module/{MODULE}/parameters/{name}"))
}

pub fn kernel_release() -> String {
    sysctl("kernel/osrelease").unwrap_or_default()
}

/// `7.3.4+deb13-amd64` to (7, 3).
pub fn kernel_series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Is the module there for the running kernel, to be loaded?
pub fn is_installed(release: &str) -> bool {
    let found = |list: &str| {
        read(&format!("/lib/modules/{release}/{list}")).is_some_and(|list| {
            list.lines().any(|line| {
                let file = line.split(':').next().unwrap_or(line);
                file.rsplit('/').next().is_some_and(|name| name.starts_with("nft_offload.ko"))
            })
        })
    };
    found("modules.dep")
}

/// What is in the way of asking the module, and what to do.
pub fn why_no_family() -> String {
    let release = kernel_release();
    if is_loaded(MODULE) {
        "the module nft_offload that is loaded has no netlink family: it is older than this program. Install the \
         module that belongs to it, delete the flowtables and run 'modprobe -r nft_offload', or reboot"
            .into()
    } else if is_loaded(C_MODULE) {
        format!(
            "the module nft_offload is not loaded, and the kernel's own nf_flow_table_inet has its place: {}delete the \
             flowtables, run 'modprobe -r nf_flow_table_inet' and load the ruleset again, or reboot. 'nft-offload doctor' \
             tells more",
            if is_installed(&release) { "" } else { "install it for this kernel, then " }
        )
    } else if is_installed(&release) {
        "the module nft_offload is not loaded: nftables loads it with the first flowtable, or run 'modprobe nft_offload'".into()
    } else {
        format!(
            "the module nft_offload is not installed for kernel {release}: install the package nft-offload-dkms, or run \
             'make' and 'make install' in its source"
        )
    }
}

/// What a program prints; else why not.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).env("LC_ALL", "C").output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("{program} is not installed"),
            _ => format!("{program} cannot be run: {error}"),
        })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {}: {}", arguments.join(" "), said.lines().next().unwrap_or("failed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(kernel_series("7.3.4+deb13-amd64"), Some((7, 3)));
        assert_eq!(kernel_series("6.12-rc1"), Some((6, 12)));
        assert_eq!(kernel_series(""), None);
    }
}
