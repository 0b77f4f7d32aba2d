package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"homeroom/datadir"
	"homeroom/test/wire"
)

// powercuts is how often each of the tests here cuts the power:
// go test -run TestPowerCut -powercuts=200 -timeout 0.
var powercuts = flag.Int("powercuts", 3, "how often each test of power cuts cuts the power")

// powerDisk is a disk whose power can be cut: an ext4 of its own, in a file.
type powerDisk struct {
	t      testing.TB
	device string
	folder string // where it is mounted
}

// mountOptions: without auto_da_alloc ext4 does not bring a file to the disk by
// itself when it takes another one's name.
const mountOptions = "noauto_da_alloc"

// newPowerDisk makes a disk and mounts it.
func newPowerDisk(t testing.TB) *powerDisk {
	t.Helper()
	needRoot(t, "losetup", "mkfs.ext4", "mount", "umount")
	image := filepath.Join(t.TempDir(), "image")
	d := &powerDisk{t: t}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 256<<20)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 " + image, "losetup -f --show " + image} {
		out, err := runCommand(line)
		if err != nil {
			t.Skipf("this machine has no loop disks: %v", err)
		}
		d.device = strings.TrimSpace(out)
	}
	t.Cleanup(func() {
		if _, err := runCommand("losetup -d " + d.device); err != nil {
			t.Error(err)
		}
	})
	d.folder = sharedFolder(t)
	if err := d.mount(); err != nil {
		t.Skipf("this machine mounts no ext4: %v", err)
	}
	t.Cleanup(func() { unmount(t, d.folder) })
	return d
}

// sharedFolder makes a folder to mount something on. Who copies all mounts
// meanwhile (ip netns does) would keep that mounted; below a shared mount, what is
// unmounted here is unmounted there too.
func sharedFolder(t testing.TB) string {
	t.Helper()
	above := t.TempDir()
	for _, line := range []string{"mount --bind " + above + " " + above, "mount --make-shared " + above} {
		if _, err := runCommand(line); err != nil {
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

// runCommand runs a command line and returns what it says.
func runCommand(line string) (string, error) {
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w, %s", line, err, out)
	}
	return string(out), err
}

func (d *powerDisk) mount() error {
	_, err := runCommand("mount -t ext4 -o " + mountOptions + " " + d.device + " " + d.folder)
	return err
}

// unmount takes a disk away once the system has let go of a killed server's
// files.
func unmount(t testing.TB, folder string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, err := runCommand("umount " + folder)
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

// cutPower: from now on nothing gets to the disk, and writing to it fails. But a
// sync that is under way then can report success for what is lost: ext4 finds
// that the journal's transaction is over, not that it was given up.
func (d *powerDisk) cutPower() {
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
	root, err := os.Open(d.folder)
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
func (d *powerDisk) writeSome() {
	const piece = 4096
	err := filepath.WalkDir(d.folder, func(path string, entry fs.DirEntry, err error) error {
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

// powerOn mounts the disk again, and with that has its journal replayed.
func (d *powerDisk) powerOn() {
	d.t.Helper()
	unmount(d.t, d.folder)
	if err := d.mount(); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.folder, "probe"), nil, 0o600); err != nil {
		d.t.Fatalf("the disk is as it was when its power failed; somebody else has it mounted too: %v", err)
	}
}

// cut cuts the power under a running program.
func (d *powerDisk) cut(p *program) {
	d.cutPower()
	p.kill()
	d.powerOn()
}

// wantChecked expects `homeroom check` to find nothing wrong in a folder, if it
// has a database.
func wantChecked(t testing.TB, folder string) {
	t.Helper()
	if !existing(filepath.Join(folder, databaseFile)) {
		return
	}
	if code, said, why := runLine("check", "-data", folder); code != exitDone {
		t.Errorf("homeroom check: exit code %d, %s\n%s", code, why, said)
	}
}

// TestPowerCut cuts the power of a server that is storing what several clients
// ask for. What was answered @status 0 is there afterwards, and nothing is that
// was not asked for.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	disk := newPowerDisk(t)
	data := filepath.Join(disk.folder, "new", "data")
	c := newCrashTest(t, buildProgram(t), programSettings, data, false)
	for _, w := range c.workers {
		w.lateLost = true // see cutPower
	}
	c.cut = func(p *program) {
		disk.cut(p)
		wantChecked(t, data)
	}
	for range *powercuts {
		if c.round(); t.Failed() {
			return
		}
	}
	c.finish("power cuts", *powercuts)
	wantChecked(t, data)
}

// waitSome waits any part of a time, or for a program's end.
func (p *program) waitSome(whole time.Duration) {
	select {
	case <-p.ended:
	case <-time.After(rand.N(whole)): // any moment will do
	}
}

// TestPowerCutFirstStart: where the power fails while a server makes its key,
// certificate and database, the next start works, and what is stored then stays.
func TestPowerCutFirstStart(t *testing.T) {
	t.Parallel()
	disk, path := newPowerDisk(t), buildProgram(t)
	settings := writeSettings(t, programSettings+"[tls]\nlisten = \"127.0.0.1:0\"\n")
	began := time.Now()
	startProgram(t, path, "-config", settings, "-data", filepath.Join(disk.folder, "whole")).kill()
	whole := time.Since(began)
	for round := range *powercuts {
		data := filepath.Join(disk.folder, fmt.Sprint(round), "data")
		args := []string{"-config", settings, "-data", data}
		for range 1 + rand.IntN(3) {
			p := launch(t, path, args...)
			p.waitSome(whole)
			disk.cut(p)
			wantChecked(t, data)
		}
		p := startProgram(t, path, args...)
		p.Member("alice")
		disk.cut(p)
		p = startProgram(t, path, args...)
		c := p.Dial()
		c.Ask("#login regd alice pw", "@status 0")
		c.Conn.Close() // a stop waits for who stays
		if code := p.terminate(); code != exitDone {
			t.Errorf("round %d: exit code %d", round, code)
		}
		if wantChecked(t, data); t.Failed() {
			return
		}
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutBackup: where the power fails during a backup of a busy server,
// there is the backup from before, or the new one, whole.
func TestPowerCutBackup(t *testing.T) {
	t.Parallel()
	disk, path := newPowerDisk(t), buildProgram(t)
	data, file := filepath.Join(disk.folder, "data"), filepath.Join(disk.folder, "backup.db")
	args := []string{"-config", writeSettings(t, programSettings), "-data", data}
	p := startProgram(t, path, args...)
	c := p.Member("alice")
	c.Ask(`#creategroup talk "" anon 0`, "@status 0")
	c.Ask("#joingroup talk", "@status 0")
	for range 200 {
		c.Ask("#postmessage heading\r\ntext", "@status 0")
	}
	posted, least, done := new(atomic.Int64), 200, 0
	posted.Store(200)
	backup := func() *program { return launch(t, path, "backup", "-data", data, file) }
	began := time.Now()
	if b := backup(); b.exitCode() != exitDone {
		t.Fatalf("the first backup: %s", b.logged())
	}
	whole := time.Since(began)
	key, err := os.ReadFile(filepath.Join(data, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	for round := range *powercuts {
		ended := p.postOn(posted)
		before := int(posted.Load())
		b := backup()
		b.waitSome(whole * 3 / 2)
		select {
		case <-b.ended:
			least = before
			done++
		default:
		}
		acknowledged := posted.Load()
		disk.cutPower()
		b.kill()
		p.kill()
		<-ended
		disk.powerOn()
		wantChecked(t, data)
		stored := int64(countRows(t, data, "messages"))
		if stored < acknowledged {
			t.Errorf("%d messages are stored, %d were acknowledged", stored, acknowledged)
		}
		posted.Store(stored)
		if least = wantRestores(t, file, key, least); t.Failed() {
			t.Fatalf("round %d", round)
		}
		p = startProgram(t, path, args...)
	}
	t.Logf("%d power cuts, %d of them after the backup was there; %d messages in the last one", *powercuts, done, least)
}

// postOn posts, and counts what is acknowledged, until the server is gone; the
// channel is closed then.
func (p *program) postOn(posted *atomic.Int64) (ended chan struct{}) {
	c := p.Guest("bob")
	c.Ask("#joingroup talk", "@status 0")
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := c.Conn.Write([]byte("#postmessage heading\r\ntext\r\n")); err != nil {
				return
			}
			got, err := c.ReadErr()
			if err != nil {
				return
			}
			if got == "@status 0" {
				posted.Add(1)
			}
		}
	}()
	return ended
}

// TestPowerCutRotate: where the power fails during a change of the key, nothing
// is lost, the server starts all the same, and the next change finishes it.
func TestPowerCutRotate(t *testing.T) {
	t.Parallel()
	disk := newPowerDisk(t)
	o := commitStore(t)
	o.folder = filepath.Join(disk.folder, "data")
	o.key.path = filepath.Join(o.folder, keyFile)
	if err := datadir.Make(o.folder); err != nil {
		t.Fatal(err)
	}
	all := fillStore(t, o, 2000)
	cutRotations(t, o, all, *powercuts, disk.cut)
	wantChecked(t, o.folder)
}
