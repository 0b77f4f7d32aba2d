// Package disk makes disks that tests can fill, and cut the power of: they need
// root, and the programs that make and mount file systems.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"homeroom/test/wire"
)

// Power is a disk whose power can be cut: an ext4 of its own, in a file.
type Power struct {
	t      testing.TB
	device string
	Folder string // where it is mounted
}

func (d *Power) mount() error {
	_, err := Run("mount -t ext4 -o " + mountOptions + " " + d.device + " " + d.Folder)
	return err
}

// Cut cuts the power: from now on nothing gets to the disk, and writing to it
// fails. But a sync that is under way can report success for data that is lost:
// ext4 finds that the journal's transaction is over, not that it was given up.
func (d *Power) Cut() {
	if rand.IntN(2) == 0 {
		d.writeSome()
	}
	how := shutdownNow
	switch rand.IntN(10) {
	case 0:
		how = shutdownFlush
	case 1, 2:
		how = shutdownLog
	}
	root, err := os.Open(d.Folder)
	if err != nil {
		d.t.Fatal(err)
	}
	defer root.Close()
	if err := unix.IoctlSetPointerInt(int(root.Fd()), ext4Shutdown, how); err != nil {
		d.t.Fatalf("cutting the power: %v", err)
	}
}

// writeSome brings pieces of files to the disk that nobody has asked for yet:
// a system writes when and in which order it likes.
func (d *Power) writeSome() {
	const piece = 4096
	err := filepath.WalkDir(d.Folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !entry.Type().IsRegular() {
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return nil // it is gone by now
		}
		defer file.Close()
		info, err := file.Stat()
		for n := int64(0); err == nil && n < info.Size()/piece && n < 64; n++ {
			how := unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
			err = unix.SyncFileRange(int(file.Fd()), rand.Int64N(info.Size()/piece)*piece, piece, how)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// On mounts the disk again, and with that has its journal replayed.
func (d *Power) On() {
	d.t.Helper()
	unmount(d.t, d.Folder)
	if err := d.mount(); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Folder, "probe"), nil, 0o600); err != nil {
		d.t.Fatalf("the disk is as it was when its power failed; somebody else has it mounted too: %v", err)
	}
}

// mountOptions: without auto_da_alloc ext4 does not bring a file to the disk by
// itself when it takes another one's name.
const mountOptions = "noauto_da_alloc"

// NewPower makes a disk and mounts it.
func NewPower(t testing.TB) *Power {
	t.Helper()
	return newExt4(t, 256<<20)
}

// SmallExt4 makes an ext4 of 64 MiB, and returns where it is mounted.
func SmallExt4(t testing.TB) string {
	t.Helper()
	return newExt4(t, 64<<20).Folder
}

// newExt4 makes an ext4 of so many bytes, in a file, and mounts it.
func newExt4(t testing.TB, size int64) *Power {
	t.Helper()
	NeedRoot(t, "losetup", "mkfs.ext4", "mount", "umount")
	image := filepath.Join(t.TempDir(), "image")
	d := &Power{t: t}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 " + image, "losetup -f --show " + image} {
		out, err := Run(line)
		if err != nil {
			t.Skipf("this machine has no loop disks: %v", err)
		}
		d.device = strings.TrimSpace(out)
	}
	t.Cleanup(func() {
		if _, err := Run("losetup -d " + d.device); err != nil {
			t.Error(err)
		}
	})
	d.Folder = sharedFolder(t)
	if err := d.mount(); err != nil {
		t.Skipf("this machine mounts no ext4: %v", err)
	}
	t.Cleanup(func() { unmount(t, d.Folder) })
	return d
}

// sharedFolder makes a folder to mount something on. A process that copies all
// mounts meanwhile (ip netns does) would keep it mounted; below a shared mount, an
// unmount here reaches that copy too.
func sharedFolder(t testing.TB) string {
	t.Helper()
	above := t.TempDir()
	for _, line := range []string{"mount --bind " + above + " " + above, "mount --make-shared " + above} {
		if _, err := Run(line); err != nil {
			t.Skipf("this machine mounts nothing: %v", err)
		}
	}
	t.Cleanup(func() { unmount(t, above) })
	folder := filepath.Join(above, "disk")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	return folder
}

// Run runs a command line and returns what it says.
func Run(line string) (string, error) {
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w, %s", line, err, out)
	}
	return string(out), err
}

// unmount takes a disk away once the system has let go of a killed server's
// files.
func unmount(t testing.TB, folder string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, err := Run("umount " + folder)
		if err == nil {
			return
		}
		if time.Since(began) > wire.Patience {
			t.Fatal(err)
		}
	}
}

// How an ext4 is shut down (EXT4_IOC_SHUTDOWN, fs/ext4/ext4.h in Linux).
const (
	ext4Shutdown  = 0x8004587d
	shutdownFlush = 0 // all that was written gets to the disk first
	shutdownLog   = 1 // what its journal holds does
	shutdownNow   = 2 // nothing does
)

// Small makes a disk that is soon full and returns where it is mounted.
func Small(t testing.TB) string {
	t.Helper()
	NeedRoot(t, "mount", "umount")
	folder := sharedFolder(t)
	if _, err := Run("mount -t tmpfs -o size=48m tmpfs " + folder); err != nil {
		t.Skipf("this machine mounts no tmpfs: %v", err)
	}
	t.Cleanup(func() { unmount(t, folder) })
	return folder
}

// Fill writes a file until there is no space left.
func Fill(t testing.TB, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for piece := make([]byte, 1<<16); len(piece) > 0; {
		if _, err := file.Write(piece); errors.Is(err, syscall.ENOSPC) {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// NeedRoot skips a test that needs root and a program where there is none; on a
// build machine that is a failure.
func NeedRoot(t testing.TB, programs ...string) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if os.Getuid() != 0 {
		skip("this test needs root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			skip("this test needs the program %s", p)
		}
	}
}
