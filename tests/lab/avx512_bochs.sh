#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the kernel checks of the AVX-512 levels (with and without VBMI), as gcc compiles them, on an emulated
# CPU that has both: a Linux whose only program is `check`, in Bochs.  For machines without AVX-512; takes ten
# minutes and more.  Not a part of the tests.
#
#   tests/lab/avx512_bochs.sh [OPTION OF check ...]        such as --function='encode*' --seed=7
#
# Ends with the status of check, 0 only if no level differs and one was compared, or 2 when the emulated
# machine did not get as far.  Needs what ternd needs to build, and of Debian 12: bochs bochs-term bochsbios
# vgabios busybox-static cpio grub-pc-bin grub-common mtools xorriso.  The kernel is fetched with apt-get
# download and not installed; KERNEL=FILE (an absolute path) names another bzImage.  WAIT=SECONDS limits the
# run (3600).
#
# Bochs 2.7 describes its Ice Lake with three slips that Linux 6.1 stumbles over, hence clearcpuid: no place
# for PKRU in the XSAVE area (bit 515), the size of the compacted area is that of the standard one (XSAVEC
# 321, XSAVES 323), and FSRM (580) comes without ERMS, upon which memmove overruns.
#
# One difference is Bochs's own: its VCVTPS2PH rounds ties away from zero whatever the mode says (in its
# roundAndPackFloat16, four bits are compared with 0x10 where 0x8 is half), so f32_to_f16 DIFFERS by one unit
# where the reference is even, and the status is 1.
set -eu

source=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 2' INT TERM HUP
cd "$dir"

kernel=${KERNEL:-}
if [ -z "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
    apt-get download -q "$package" >download.txt 2>&1
    dpkg-deb --fsys-tarfile ./*.deb | tar x --wildcards './boot/vmlinuz-*'
    kernel=$(echo boot/vmlinuz-*)
fi

cmake -S "$source" -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_EXE_LINKER_FLAGS=-static >build.txt
cmake --build build --target check >>build.txt

mkdir -p tree/bin iso/boot/grub
cp /bin/busybox build/bin/check tree/bin
cp "$kernel" iso/boot/vmlinuz
: >tree/options
for option; do
    printf '%s\n' "$option" >>tree/options
done
# The empty lines push the end out of Bochs's buffer of the serial line.
cat >tree/init <<'END'
#!/bin/busybox sh
set --
while read -r option; do
    set -- "$@" "$option"
done </options
echo "check begins"
status=77
for level in avx512 avx512vbmi; do
    /bin/check --level=$level "$@"
    this=$?
    if [ $this -ne 77 ] && { [ $status -eq 77 ] || [ $status -eq 0 ]; }; then
        status=$this
    fi
done
echo "check ended with $status"
i=0
while [ $i -lt 5000 ]; do
    echo
    i=$((i + 1))
done
/bin/busybox poweroff -f
END
chmod +x tree/init
(cd tree && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >iso/boot/initrd.gz
cat >iso/boot/grub/grub.cfg <<'END'
linux /boot/vmlinuz console=ttyS0 rdinit=/init mitigations=off nokaslr panic=1 clearcpuid=515,321,323,580
initrd /boot/initrd.gz
boot
END
grub-mkrescue -d /usr/lib/grub/i386-pc --install-modules="linux normal iso9660 biosdisk" --fonts= \
    --locales= --themes= -o boot.iso iso 2>grub.txt

cat >bochsrc <<'END'
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_icelake_u, count=1, ips=200000000
memory: guest=512, host=512
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
clock: sync=none
log: bochs.txt
panic: action=fatal
END
# Debian's Bochs has the debugger built in and waits for its command to continue; `term` needs a terminal.
echo c >debugger.rc
TERM=vt100 timeout -s KILL "${WAIT:-3600}" nice -n 10 \
    script -qec "bochs -q -f bochsrc -rc debugger.rc" /dev/null </dev/null >screen.txt 2>&1 || true

[ -f serial.txt ] || { tail -n 20 screen.txt >&2; exit 2; }
tr -d '\r' <serial.txt | sed -n '/^check begins/,/^check ended/p'
status=$(tr -d '\r' <serial.txt | sed -n 's/^check ended with //p')
[ -n "$status" ] || { tail -n 20 serial.txt >&2; exit 2; }
exit "$status"
