package store

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestNumbersAreSealed: whoever changes by hand what stands in clear beside a sealed
// column is found out when it is read, and by check.
func TestNumbersAreSealed(t *testing.T) {
	t.Parallel()
	for text, what := range map[string]struct {
		kind Kind
		is   string
	}{
		"UPDATE messages SET grp = grp + 1":       {Message, "message 1"},
		"UPDATE messages SET parent = 7":          {Message, "message 1"},
		"UPDATE messages SET ends = ends - 1":     {Message, "message 1"},
		"UPDATE rooms SET owner = owner + 1":      {Room, "room 1"},
		"UPDATE rooms SET ends = 1":               {Room, "room 1"},
		"UPDATE groups SET owner = owner + 1":     {Group, "group 1"},
		"UPDATE groups SET ends = 1":              {Group, "group 1"},
		"UPDATE bans SET ends = ends + 1":         {Ban, "ban 1"},
		"UPDATE messages SET replies = 7, id = 1": {}, // a count, not sealed
	} {
		o := commitStore(t)
		st := newStore(t, o)
		group := addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: Pack("talk", "talk", "", "anon", "0")})
		addRecord(t, st, Record{Kind: Room, Parent: 3, Ends: 500, Head: Pack("den", "den", "", "anon")})
		addRecord(t, st, Record{Kind: Ban, Ends: 600, Head: Pack("name", "vic")})
		message := addRecord(t, st, messageRecord(group, 0, "first"))
		db := openBeside(t, o.Folder)
		defer db.Close()
		mustExec(t, db, text)
		read := func() error {
			if what.kind == Message || what.is == "" {
				_, err := st.Get(Message, message)
				return err
			}
			return st.Load(what.kind, func(Record) error { return nil })
		}
		var said bytes.Buffer
		err, checked := read(), Check(t.Context(), &said, o.Folder, o.Key)
		if what.is == "" {
			if err != nil || checked != nil {
				t.Errorf("%s: %v, check: %v", text, err, checked)
			}
			continue
		}
		for name, got := range map[string]string{"reading": fmt.Sprint(err), "check": said.String()} {
			if !strings.Contains(got, what.is+" does not open with key 1") {
				t.Errorf("%s: %s says %q", text, name, got)
			}
		}
		if checked == nil {
			t.Errorf("%s: check finds nothing wrong", text)
		}
	}
}

// TestEndsStaySealed: a room or group whose end or owner changes opens with the new one.
func TestEndsStaySealed(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st := newStore(t, o)
	room := Record{Kind: Room, Parent: 3, Ends: 500, Head: Pack("den", "den", "", "anon")}
	room.ID = addRecord(t, st, room)
	group := addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: Pack("talk", "talk", "", "anon", "0")})
	if err := st.Save(Ends{{Room, room.ID}: 700, {Group, group}: 800}); err != nil {
		t.Fatal(err)
	}
	room.Parent = 4
	if err := st.Replace(room); err != nil {
		t.Fatal(err)
	}
	var got []Record
	for _, k := range []Kind{Room, Group} {
		if err := st.Load(k, func(r Record) error { got = append(got, r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 2 || got[0].Parent != 4 || got[0].Ends != 700 || got[1].Ends != 800 || !bytes.Equal(got[0].Head, room.Head) {
		t.Errorf("stored are %+v, want owner 4, ends 700 and 800", got)
	}
	if err := Check(t.Context(), &bytes.Buffer{}, o.Folder, o.Key); err != nil {
		t.Error(err)
	}
}

// TestFirstFormat: what was sealed before numbers were sealed with it is read, and a
// change of the key seals it anew.
func TestFirstFormat(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	st, err := OpenSQLite(o)
	if err != nil {
		t.Fatal(err)
	}
	group := addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: Pack("talk", "talk", "", "anon", "0")})
	message := addRecord(t, st, messageRecord(group, 0, "first"))
	r, err := st.Get(Message, message)
	if err != nil {
		t.Fatal(err)
	}
	old := func(c column, clear []byte) []byte {
		s := sealer{ring: st.ring}
		header := []byte{firstFormat, 0, 0, 0, 1}
		s.authenticate(header, &r, c)
		return st.ring.ciphers[1][Message].Seal(header, clear, s.extra)
	}
	db := openBeside(t, o.Folder)
	defer db.Close()
	mustExec(t, db, "UPDATE messages SET head = ?, body = ?", old(columnHead, r.Head), old(columnBody, r.Body))
	if got, err := st.Get(Message, message); err != nil || !bytes.Equal(got.Body, r.Body) {
		t.Errorf("read is %q, %v", got.Body, err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Rotate(t.Context(), &bytes.Buffer{}, o.Folder, o.Key, o.Key); err != nil {
		t.Fatal(err)
	}
	wantRotated(t, o, 2)
}

// TestForeignSchema: a database in which somebody has put a trigger, a view, a table or
// an index, or taken one away, is refused untouched, and check tells what it is.
func TestForeignSchema(t *testing.T) {
	t.Parallel()
	for text, what := range map[string]string{
		"CREATE TRIGGER evil AFTER INSERT ON messages BEGIN UPDATE accounts SET head = zeroblob(0); END": "trigger evil is unknown",
		"CREATE VIEW evil AS SELECT * FROM accounts":                                                     "view evil is unknown",
		"CREATE TABLE notes (text)":                                                                      "table notes is unknown",
		"CREATE INDEX slow ON messages (body)":                                                           "index slow is unknown",
		"DROP INDEX messages_ends":                                                                       "index messages_ends is missing",
		"ALTER TABLE rooms ADD COLUMN note TEXT":                                                         "table rooms is different",
	} {
		o := commitStore(t)
		if err := openOnce(o); err != nil {
			t.Fatal(err)
		}
		db := openBeside(t, o.Folder)
		mustExec(t, db, text)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		before := fingerprint(t, o.Folder)
		if err := openOnce(o); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), filepath.Join(o.Folder, DatabaseFile)) {
			t.Errorf("%s: the store opens with %v, want that %s", text, err, what)
		}
		wantSame(t, before, fingerprint(t, o.Folder))
		var said bytes.Buffer
		if err := Check(t.Context(), &said, o.Folder, o.Key); err == nil || !strings.Contains(said.String(), "schema: "+what) {
			t.Errorf("%s: check says %q (%v)", text, said.String(), err)
		}
	}
	o := commitStore(t)
	if err := openOnce(o); err != nil {
		t.Fatal(err)
	}
	db := openBeside(t, o.Folder)
	mustExec(t, db, "ANALYZE") // statistics harm nobody
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openOnce(o); err != nil {
		t.Errorf("after an ANALYZE: %v", err)
	}
}
