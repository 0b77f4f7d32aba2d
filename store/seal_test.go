package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// opened is every record of a data folder as it is stored, opened with its key.
func opened(t testing.TB, folder string, src KeySource) (all []Record) {
	t.Helper()
	db := openBeside(t, folder)
	defer db.Close()
	rows, err := keyRowsOf(db)
	if err != nil || len(rows) == 0 {
		t.Fatalf("%d keys are noted (%v)", len(rows), err)
	}
	keys, err := src.unlock(rows)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := newKeyRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	seal := sealer{ring: ring}
	for k := range Kinds {
		err := eachPage(db, k, func(page []Record) error {
			for _, r := range page {
				if err := seal.open(&r); err != nil {
					return err
				}
				all = append(all, r)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%ss: %v", k, err)
		}
	}
	return all
}

// testRing is a ring of keys 1 to n.
func testRing(t testing.TB, n int) *keyRing {
	t.Helper()
	keys := make([]masterKey, n)
	for i := range keys {
		keys[i] = masterKey{uint32(i + 1), bytes.Repeat([]byte{byte(i)}, masterBytes), testCipher}
	}
	ring, err := newKeyRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// sealedCopy seals a record into memory of its own.
func sealedCopy(s *sealer, r Record) Record {
	head, body := s.record(&r)
	r.Head, r.Body = bytes.Clone(head), bytes.Clone(body)
	return r
}

// TestSealOpens: what was sealed opens as it was, also when the key has changed
// since; the same thing sealed twice is not the same.
func TestSealOpens(t *testing.T) {
	t.Parallel()
	old, s := sealer{ring: testRing(t, 1)}, sealer{ring: testRing(t, 2)}
	for _, size := range []int{0, 1, 15, 16, 17, 1000, 2 * keepSealed} {
		r := Record{Kind: Message, ID: int64(size), Head: bytes.Repeat([]byte("h"), size), Body: []byte("body")}
		for _, with := range []*sealer{&old, &s} {
			got, other := sealedCopy(with, r), sealedCopy(with, r)
			if bytes.Equal(got.Head, other.Head) {
				t.Errorf("%d bytes: sealed twice, it is the same", size)
			}
			if n, err := sealedWith(got.Head); err != nil || n != with.ring.current {
				t.Errorf("%d bytes: sealed with key %d (%v), want %d", size, n, err, with.ring.current)
			}
			if err := s.open(&got); err != nil || !bytes.Equal(got.Head, r.Head) || string(got.Body) != "body" {
				t.Errorf("%d bytes: it opens as %.20q, %.20q (%v)", size, got.Head, got.Body, err)
			}
		}
	}
	r := Record{Kind: Room, ID: 1, Head: []byte("no body")}
	if r = sealedCopy(&s, r); r.Body != nil || s.open(&r) != nil || r.Body != nil {
		t.Errorf("a body that is missing came to be %q", r.Body)
	}
}

// TestSealIsBound: what was changed, or copied to another record, column, table
// or key, does not open.
func TestSealIsBound(t *testing.T) {
	t.Parallel()
	s := sealer{ring: testRing(t, 2)}
	original := sealedCopy(&s, Record{Kind: Message, ID: 7, Head: []byte("head"), Body: []byte("body")})
	refused := func(name string, r Record) {
		t.Helper()
		r.Head, r.Body = bytes.Clone(r.Head), bytes.Clone(r.Body)
		if err := s.open(&r); err == nil {
			t.Errorf("%s: it opens as %q and %q", name, r.Head, r.Body)
		} else if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
	}
	moved := original
	moved.ID = 8
	refused("another record", moved)
	moved = original
	moved.Kind = Account
	refused("another table", moved)
	moved = original
	moved.Head, moved.Body = original.Body, original.Head
	refused("another column", moved)
	for name, change := range map[string]func(*Record){
		"another group": func(r *Record) { r.Group++ }, "another parent": func(r *Record) { r.Parent++ }, "another end": func(r *Record) { r.Ends++ },
		"the first format": func(r *Record) { r.Head, r.Body = bytes.Clone(r.Head), nil; r.Head[0] = firstFormat },
	} {
		moved = original
		change(&moved)
		refused(name, moved)
	}
	moved = original
	moved.Head = nil
	moved.Body = []byte("in clear")
	refused("in clear", moved)
	for bit := range len(original.Head) * 8 {
		moved = original
		moved.Head = bytes.Clone(original.Head)
		moved.Head[bit/8] ^= 1 << (bit % 8)
		refused(fmt.Sprintf("bit %d", bit), moved)
	}
	for size := range original.Head {
		moved = original
		moved.Head = original.Head[:size]
		refused(fmt.Sprintf("%d bytes of it", size), moved)
	}
}

// TestSealAllocates: sealing takes no memory of its own, opening neither.
func TestSealAllocates(t *testing.T) {
	s := sealer{ring: testRing(t, 1)}
	r := Record{Kind: Message, ID: 1, Head: make([]byte, 50), Body: make([]byte, 500)}
	sealed := sealedCopy(&s, r)
	copied := Record{Kind: Message, ID: 1, Head: make([]byte, 0, 100), Body: make([]byte, 0, 600)}
	allocated := testing.AllocsPerRun(100, func() {
		s.record(&r)
		again := copied
		again.Head, again.Body = append(copied.Head, sealed.Head...), append(copied.Body, sealed.Body...)
		if err := s.open(&again); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 1 {
		t.Errorf("%v allocations for a message that is sealed and opened", allocated)
	}
}

// canaries is what stands in the database of clearDatabase.
var canaries = []string{"canary", "Alice", "alice", "SCRAM-SHA", "The Den", "example.org"}

// clearDatabase makes a database of version 1, with canaries in records, in free
// space and in the log.
func clearDatabase(t *testing.T) (folder string) {
	t.Helper()
	folder = frozenDatabase(t)
	db := openBeside(t, folder)
	defer db.Close()
	random := rand.New(rand.NewPCG(1, 2))
	mustExec(t, db, "BEGIN")
	for id := 100; id < 1000; id++ {
		text := strings.Repeat("canary-text ", 1+random.IntN(800))
		mustExec(t, db, "INSERT INTO messages VALUES (?, 3, 0, 0, 9000000, ?, ?)", id, Pack("canary-heading", "canary"), Pack(text))
	}
	mustExec(t, db, "COMMIT")
	mustExec(t, db, "DELETE FROM messages WHERE id > 100 AND id % 3 = 0")
	mustExec(t, db, "PRAGMA journal_mode = WAL")
	mustExec(t, db, "UPDATE messages SET body = zeroblob(0) || body WHERE id % 5 = 0")
	killed := copyDatabase(t, folder)
	for _, name := range []string{DatabaseFile, DatabaseFile + "-wal"} {
		if content, err := os.ReadFile(filepath.Join(killed, name)); err != nil || !bytes.Contains(content, []byte("canary-text")) {
			t.Fatalf("%s has no canary; this test would find nothing (%v)", name, err)
		}
	}
	return killed
}

// canaryMessages counts the messages that clearDatabase added and left.
func canaryMessages(all []Record) (n int) {
	for _, r := range all {
		if r.Kind == Message && bytes.Contains(r.Body, []byte("canary-text")) {
			n++
		}
	}
	return n
}

// wantNoCanary expects that nothing of what users wrote is in a folder in clear.
func wantNoCanary(t *testing.T, folder string) {
	t.Helper()
	stored := folderContent(t, folder)
	for _, canary := range canaries {
		if at := bytes.Index(stored, []byte(canary)); at >= 0 {
			t.Errorf("%q is in the folder: %q", canary, stored[max(0, at-20):min(len(stored), at+40)])
		}
	}
}

// TestSealInterrupted: a start that was cut off after the sealing, but before
// the free space was cleared, is made good by the next one.
func TestSealInterrupted(t *testing.T) {
	t.Parallel()
	folder := clearDatabase(t)
	path, src := filepath.Join(folder, DatabaseFile), KeySource{Path: filepath.Join(folder, KeyFile), Derive: testCipher}
	key, row, err := src.first()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := newKeyRing([]masterKey{key})
	if err != nil {
		t.Fatal(err)
	}
	db, err := openDatabase(path)
	if err != nil {
		t.Fatal(err)
	}
	row.clean = false
	if err := migrate(db); err != nil {
		t.Fatal(err)
	}
	if err := sealAll(db, ring, row); err != nil {
		t.Fatal(err)
	}
	killed := copyDatabase(t, folder)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(folderContent(t, killed), []byte("canary-text")) {
		t.Fatal("no clear text is left after the sealing; this test would find nothing")
	}
	if _, err := openKeys(filepath.Join(killed, DatabaseFile), src); err != nil {
		t.Fatal(err)
	}
	wantNoCanary(t, killed)
	if n := canaryMessages(opened(t, killed, src)); n != 600 {
		t.Errorf("%d messages are left", n)
	}
}

// TestMovedRecordTold: a message that somebody copied over another one in the
// database is an error, not a message.
func TestMovedRecordTold(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st := newStore(t, o)
	group := addGroup(t, st)
	first, second := addRecord(t, st, messageRecord(group, 0, "first")), addRecord(t, st, messageRecord(group, 0, "second"))
	db := openBeside(t, o.Folder)
	defer db.Close()
	mustExec(t, db, "UPDATE messages SET body = (SELECT body FROM messages WHERE id = ?) WHERE id = ?", first, second)
	if _, err := st.Get(Message, second); !strings.Contains(err.Error(), "does not open") {
		t.Errorf("got %v, want an error that says that it does not open", err)
	}
	if _, err := st.Get(Message, first); err != nil {
		t.Error(err)
	}
}
