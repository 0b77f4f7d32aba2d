package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
	"homeroom/test/storetest"
	"homeroom/test/wire"
)

// TestNothingChangedNothingWritten: people come, talk, look around and go, and
// no byte is written, in either mode.
func TestNothingChangedNothingWritten(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"commit", "periodic"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				c := b.guest("alice")
				c.Ask("#createroom den", "@status 0")
				c.Ask(`#creategroup talk "" anon`, "@status 0")
				c.Ask("#joingroup talk", "@status 0")
				c.Post("hello", 0, 0)
				c.Ask("#changeroom den", "@status 0")
				b.pass(time.Minute)
				before := storetest.Fingerprint(t, b.cfg.Server.Data)
				for range 20 {
					other := b.guest("bob")
					other.Ask("#broadcast hello", `@mess #broadcast bob "hello"`, "@status 0")
					other.Ask("#sendto bob hello", `@mess #sendto bob "hello"`, "@status 0")
					other.Ask("#changeroom den", "@status 0")
					other.Ask("#rmroom den", "@status 3103")
					other.Ask("#getmessage 1", "@status 3200")
					c.Listed("#listmessages", "hello")
					c.Number("message")
					other.Conn.Close()
					b.pass(2 * time.Second)
				}
				storetest.WantSame(t, before, storetest.Fingerprint(t, b.cfg.Server.Data))
				c.Ask("#changeroom Home", "@status 0")
				b.pass(2 * time.Second)
				if after := storetest.Fingerprint(t, b.cfg.Server.Data); after[store.DatabaseFile+"-wal"] == before[store.DatabaseFile+"-wal"] {
					t.Error("the end of an empty room was not written; this test would not notice a write")
				}
			}, func(cfg *config) { cfg.Persist.Mode = mode })
		})
	}
}

// fullStore is a store that has space for so many records.
type fullStore struct {
	store.Store
	space int
}

func (f *fullStore) Add(r *store.Record) error {
	if f.space == 0 {
		return fmt.Errorf("storing a %s: %w", r.Kind, store.ErrFull)
	}
	f.space--
	return f.Store.Add(r)
}

// TestFullDiskTold: a post that finds no space is answered -2 and is nowhere;
// talking goes on, and so does posting once there is space.
func TestFullDiskTold(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		c.Ask(`#creategroup talk "" anon`, "@status 0")
		c.Ask("#joingroup talk", "@status 0")
		disk := &fullStore{Store: b.store, space: 20}
		b.store = disk
		stored, post := 0, "#postmessage heading\r\n"+strings.Repeat("x", 900)
		for c.Send(post); c.Read() == "@status 0"; c.Send(post) {
			if stored++; stored > 100 {
				t.Fatal("the disk does not get full")
			}
		}
		c.Ask(post, "@status -2")
		c.Ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
		number := c.Number("message")
		c.Ask(post, "@status -2")
		if c.Number("message") != number {
			t.Error("#messagestatus changed although nothing was stored")
		}
		if words := c.Listed("#listgroups", "talk"); words[3] != fmt.Sprint(stored) {
			t.Errorf("the group shows %q, want %d messages", words, stored)
		}
		disk.space = 1000
		c.Ask(post, "@status 0")
		c.Send("#listmessages")
		if got, want := c.Read(), fmt.Sprintf("@ret #listmessages %d", stored+1); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if n := storetest.CountRows(t, b.cfg.Server.Data, "messages"); n != stored+1 {
			t.Errorf("%d messages are stored, want %d", n, stored+1)
		}
	})
}

// TestSealExisting: a database from before the sealing is sealed at the first
// start, with all that is in it, and nothing of it is left in clear anywhere.
func TestSealExisting(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Server.Data = storetest.ClearDatabase(t)
	ts := startWith(t, cfg)
	storetest.WantNoCanary(t, cfg.Server.Data)
	src := store.KeySource{Path: filepath.Join(cfg.Server.Data, store.KeyFile), Derive: newGCM}
	if n := storetest.CanaryMessages(storetest.Records(t, cfg.Server.Data, src)); n != 600 {
		t.Errorf("%d messages are left", n)
	}
	ts = ts.restart()
	storetest.WantNoCanary(t, cfg.Server.Data)
	ts.stopNow()
	storetest.WantNoCanary(t, cfg.Server.Data)
}

// TestBackupWhileRunning: a backup that is made while people post is of one
// moment, and what is restored from it opens with the key.
func TestBackupWhileRunning(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	c := ts.Member("alice")
	c.Ask(`#creategroup talk "" anon`, "@status 0")
	c.Ask("#joingroup talk", "@status 0")
	stop := make(chan struct{})
	var posting sync.WaitGroup
	posted := make(chan bool, 1)
	posting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.Ask("#postmessage canary-heading\r\ncanary-text", "@status 0")
				select {
				case posted <- true:
				default:
				}
			}
		}
	})
	var files []string
	for range 5 {
		<-posted
		files = append(files, storetest.BackupOf(t, ts.cfg.Server.Data))
	}
	close(stop)
	posting.Wait()
	key, err := os.ReadFile(filepath.Join(ts.cfg.Server.Data, store.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	before := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("canary")) || bytes.Contains(content, []byte("alice")) || bytes.Contains(content, key) {
			t.Error("the backup holds what users wrote, or the key")
		}
		before = wantRestores(t, file, key, before)
	}
	storetest.WantOnly(t, filepath.Dir(files[0]), "backup.db")
}

// wantRestores restores a backup into a fresh folder and expects a server there
// to have a group with at least so many messages as it counts.
func wantRestores(t *testing.T, file string, key []byte, least int) (messages int) {
	t.Helper()
	cfg := testConfig(t)
	src := store.NewKeySource("", cfg.Server.Data, nil, newGCM)
	if err := os.WriteFile(src.Path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if err := store.Restore(t.Context(), &said, cfg.Server.Data, file, false, src); err != nil || strings.Contains(said.String(), "not start") {
		t.Fatalf("restoring: %v; it says %q", err, said.String())
	}
	if err := store.Check(t.Context(), io.Discard, cfg.Server.Data, src); err != nil {
		t.Errorf("checking what was restored: %v", err)
	}
	messages = storetest.CountRows(t, cfg.Server.Data, "messages")
	ts := startWith(t, cfg)
	if all := ts.groups.all(); len(all) != 1 || int(all[0].messages.Load()) != messages || messages < least {
		t.Errorf("%d groups, %d messages (at least %d before)", len(all), messages, least)
	}
	c := ts.Dial()
	c.Ask("#login regd alice pw", "@status 0")
	c.Conn.Close() // a stop waits for those who stay
	ts.stopNow()
	return messages
}

// TestFrozenDatabase: a database as version 1 made it is read with all that is
// in it.
func TestFrozenDatabase(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		synctest.Wait()
		c := b.dial()
		c.Ask("#login regd alice pw", "@status 0")
		c.Ask("#whoami", "@ret #whoami Alice Home 1 - 0")
		c.Ask("#listrooms", "@ret #listrooms 2", "Home - 1 0 pub anon", `"The Den" Alice 0 1800 pub anon`)
		c.Ask("#listgroups", "@ret #listgroups 1", "Talk Alice 3 2 0 3600 pub anon")
		c.Ask("#joingroup talk", "@status 0")
		c.Ask("#listmessages", "@ret #listmessages 2", "Hello Alice 19 0 1 8000", "Answer Bob 20 19 0 0")
		c.Ask("#getmessage 19", "@ret #getmessage Hello 2 19 0 1 8000", "first part", "#second")
		if n := c.Number("arch"); n <= 900 {
			t.Errorf("#archstatus is %d; 900 was given before", n)
		}
		if id := c.Post("next", 19, 0); id != 21 {
			t.Errorf("the next message has number %d, want 21", id)
		}
		if n := storetest.CountRows(t, b.cfg.Server.Data, "messages"); n != 3 {
			t.Errorf("%d messages are stored, want 3: the deleted group's go", n)
		}
		if n := b.messages.stored.Load(); n != 3 {
			t.Errorf("%d messages count against the limit, want 3", n)
		}
		c.Ask("#changepass new pw", "@status 0")
	}, func(cfg *config) { cfg.Server.Data = storetest.FrozenDatabase(t) })
}

// TestSecrets: nothing that users wrote is in the data folder or the log in
// clear, and no password is even in what is sealed.
func TestSecrets(t *testing.T) {
	captured, ts := captureLog(t), startServer(t)
	data := ts.cfg.Server.Data
	c := ts.Guest("visitor")
	c.Ask(`#createlogin alice canary-first "Real canary-name" canary-mail`, "@status 0")
	c.Ask("#login regd alice canary-wrong", "@status 3002")
	c.Ask("#login regd alice canary-first", "@status 0")
	c.Ask("#changepass canary-second canary-first", "@status 0")
	c.Ask("#createroom den canary-room", "@status 0")
	c.Ask("#changeroom den canary-none", "@status 3101")
	c.Ask("#changeroom den canary-room", "@status 0")
	c.Ask("#creategroup talk canary-group", "@status 0")
	c.Ask("#joingroup talk canary-group", "@status 0")
	c.Ask("#postmessage canary-heading\r\ncanary-text", "@status 0")
	c.Ask("#broadcast canary-broadcast", `@mess #broadcast alice "canary-broadcast"`, "@status 0")
	c.Ask("#sendto alice canary-private", `@mess #sendto alice "canary-private"`, "@status 0")
	c.Ask("canary-command", "@status 3502")
	stored := storetest.FolderContent(t, data)
	ts.stopNow()
	stored = append(stored, storetest.FolderContent(t, data)...)
	if bytes.Contains(stored, []byte("canary")) || bytes.Contains(stored, []byte("alice")) || bytes.Contains(stored, []byte("SCRAM-SHA")) {
		t.Error("something that a user wrote is in the data folder in clear")
	}
	var sealed []byte
	for _, r := range storetest.Records(t, data, store.KeySource{Path: filepath.Join(data, store.KeyFile), Derive: newGCM}) {
		sealed = append(append(sealed, r.Head...), r.Body...)
	}
	if !bytes.Contains(sealed, []byte("canary-text")) {
		t.Error("the text of the message is not in what is sealed; this test would not find a password")
	}
	for _, secret := range []string{"first", "wrong", "second", "room", "none", "group", "broadcast", "private"} {
		if bytes.Contains(sealed, []byte("canary-"+secret)) {
			t.Errorf("canary-%s is in what is sealed", secret)
		}
	}
	if strings.Contains(captured.String(), "canary") {
		t.Errorf("the log has what a user wrote:\n%s", captured.String())
	}
}

// tightStore is a store on a disk on which so much is free.
type tightStore struct {
	store.Store
	free, disk atomic.Int64
}

func (s *tightStore) Space() store.Space {
	space := s.Store.Space()
	space.Free, space.Disk = s.free.Load(), s.disk.Load()
	return space
}

// onTightDisk puts a server on a disk of so many bytes, with so many free.
func (b *bubble) onTightDisk(disk, free int64) *tightStore {
	s := &tightStore{Store: b.store}
	s.disk.Store(disk)
	s.free.Store(free)
	b.server.store, b.rooms.store, b.groups.store = s, s, s
	return s
}

// TestReserve: while less than the reserve would be free, what users store is -2, and
// nothing else is: they talk, read and delete, and administrators' commands work. The
// reserve is at most a tenth of the disk.
func TestReserve(t *testing.T) {
	inBubble(t, func(b *bubble) {
		owner, host := b.inTalk("127.0.0.1"), b.dialHost()
		owner.Ask("#createlogin owner password Owner -", "@status 0")
		owner.Ask("#login regd owner password", "@status 0")
		owner.Ask("#createroom den", "@status 0")
		owner.Ask("#joingroup talk", "@status 0")
		owner.Post("kept", 0, 0)
		const tenth = 10 << 20
		d := b.onTightDisk(10*tenth, tenth-1)
		guest := b.inTalk("10.0.0.1")
		guest.Ask("#postmessage big\r\ntext", "@status -2")
		guest.Ask("#createroom other", "@status -2")
		guest.Ask("#creategroup other", "@status -2")
		owner.Ask("#createlogin other password Other -", "@status -2")
		owner.Ask("#changepass password2 password", "@status -2")
		owner.Ask("#changeroom den", "@status 0")
		owner.Ask("#roompass secret", "@status -2")

		guest.Ask("#broadcast hello", `@mess #broadcast `+nameOf(guest)+` "hello"`, "@status 0")
		guest.Listed("#listmessages", "kept")
		host.Ask("#createlogin made password Made -", "@status 0")
		host.Ask("#role owner admin", "@status 0")
		host.Ask("#resetpass made password3", "@status 0")
		owner.Ask("#adduser added password Added -", "@status 0")
		owner.Ask("#ban 192.0.2.1", "@status 0")
		owner.Ask("#unban 192.0.2.1", "@status 0")
		owner.Ask("#rmuser made", "@status 0")
		owner.Ask("#changeroom Home", "@status 0")
		owner.Ask("#rmroom den", "@status 0")

		cost := b.messageSize(guest, "big", "text")
		d.free.Store(tenth + cost - 1)
		guest.Ask("#postmessage big\r\ntext", "@status -2")
		d.free.Store(tenth + cost)
		guest.Ask("#postmessage big\r\ntext", "@status 0")
		d.disk.Store(1 << 40)
		b.settings().Limits.ReserveMiB = 1
		d.free.Store(1<<20 + cost - 1)
		guest.Ask("#postmessage big\r\ntext", "@status -2")
		d.free.Store(1<<20 + cost)
		guest.Ask("#postmessage big\r\ntext", "@status 0")
		d.free.Store(0)
		b.settings().Limits.ReserveMiB = 0
		guest.Ask("#postmessage big\r\ntext", "@status 0")
	})
}

// messageSize is what a message of a client takes of the disk, as the server counts it.
func (b *bubble) messageSize(c *wire.Client, heading string, lines ...string) int64 {
	r := packMessage(0, postArgs{heading: heading}, b.findOnline(nameOf(c)).who.Load(), lines)
	return r.Size()
}

// TestStoreEach: what one account, or the guests at one address, have stored is bounded in
// bytes, also over a restart, until it ends; others have their own.
func TestStoreEach(t *testing.T) {
	inBubble(t, func(b *bubble) {
		fill := func(c *wire.Client) (posts int) {
			for ; ; posts++ {
				c.Send("#postmessage big 0 200 60")
				for range 200 {
					c.Send(strings.Repeat("x", 900))
				}
				if line := c.Read(); line == "@status -2" {
					return posts
				} else if line != "@status 0" || posts > 10 {
					t.Fatalf("post %d: %q", posts, line)
				}
			}
		}
		each := int((1 << 20) / b.messageSize(b.inTalk("10.0.0.9"), "big", slices.Repeat([]string{strings.Repeat("x", 900)}, 200)...))
		first := b.inTalk("10.0.0.1")
		if n := fill(first); n != each {
			t.Errorf("%d posts, want %d", n, each)
		}
		if n := fill(b.inTalk("10.0.0.1")); n != 0 {
			t.Errorf("another guest at the address has %d posts stored", n)
		}
		if n := fill(b.inTalk("10.0.0.2")); n != each {
			t.Errorf("a guest at another address: %d posts, want %d", n, each)
		}
		if _, err := b.store.Shares(); err != nil {
			t.Error(err)
		}
		b = b.restart(time.Second)
		if n := fill(b.inTalk("10.0.0.1")); n != 0 {
			t.Errorf("after a restart %d more posts are stored", n)
		}
		b.pass(2 * time.Minute)
		b.storage.mu.Lock()
		for share, bytes := range b.storage.shares {
			if bytes > 1000 { // the group
				t.Errorf("share %d holds %d bytes still", share, bytes)
			}
		}
		b.storage.mu.Unlock()
		if n := fill(b.inTalk("10.0.0.1")); n != each {
			t.Errorf("once they have ended: %d posts, want %d", n, each)
		}
		b.settings().Limits.StoreMiBEach = 0
		late := b.inTalk("10.0.0.1")
		late.Send("#postmessage more")
		late.Ask("text", "@status 0")
	}, func(c *config) { c.Limits.StoreMiBEach = 1 })
}

// TestStoreAll: all that is stored is bounded in bytes of the database; what is deleted
// makes room.
func TestStoreAll(t *testing.T) {
	inBubble(t, func(b *bubble) {
		c := b.inTalk("10.0.0.1")
		cost := b.messageSize(c, "big", strings.Repeat("x", 900))
		post := func() string {
			c.Send("#postmessage big 0 1 60", strings.Repeat("x", 900))
			return c.Read()
		}
		posts := 0
		for line := post(); line != "@status -2"; line = post() {
			if posts++; line != "@status 0" || posts > 2000 {
				t.Fatalf("post %d: %q", posts, line)
			}
			if used := b.store.Space().Used; used > 1<<20+8<<10 {
				t.Fatalf("%d bytes are used", used)
			}
		}
		if used := b.store.Space().Used; used+cost <= 1<<20 {
			t.Errorf("refused with %d bytes used and %d to come", used, cost)
		}
		b.pass(2 * time.Minute)
		if line := post(); line != "@status 0" {
			t.Errorf("once they have ended: %q", line)
		}
		b.settings().Limits.StoreMiB = 0
		for range posts + 10 {
			if line := post(); line != "@status 0" {
				t.Fatalf("without a limit: %q", line)
			}
		}
	}, func(c *config) { c.Limits.StoreMiB = 1 })
}

// TestBrokenTextCost: bytes that are not UTF-8 take as much as others, in memory and on
// the disk, and are shown as U+FFFD.
func TestBrokenTextCost(t *testing.T) {
	inBubble(t, func(b *bubble) {
		c := b.inTalk("10.0.0.1")
		line := strings.Repeat("\xfe\xc3", 400)
		c.Send("#postmessage broken 0 2", line)
		b.unfinished(800 + lineCost)
		c.Send(line)
		c.Expect("@status 0")
		r, err := b.store.Get(store.Message, 1)
		if err != nil || len(r.Body) > 2*800+8 {
			t.Errorf("%d bytes are stored, %v", len(r.Body), err)
		}
		shown := strings.Repeat("\uFFFD", 800)
		c.Send("#getmessage 1")
		c.Expect("@ret #getmessage broken 2 1 0 0 2592000")
		c.Expect(shown)
		c.Expect(shown)
	})
}

// nameOf is the name under which a client is logged in.
func nameOf(c *wire.Client) string {
	c.T.Helper()
	c.Send("#whoami")
	return wire.Words(c.Read())[2]
}
