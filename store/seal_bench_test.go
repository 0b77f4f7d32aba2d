package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkPosts stores posts of 200 bytes, many at a time, as a busy server does.
func BenchmarkPosts(b *testing.B) {
	st := newStore(b, commitStore(b))
	group := addGroup(b, st)
	r := messageRecord(group, 0, strings.Repeat("text ", 40))
	b.ReportAllocs()
	b.SetParallelism(100)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			post := r
			if err := st.Add(&post); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
}

// BenchmarkPages lists a group of 2000 messages.
func BenchmarkPages(b *testing.B) {
	st := newStore(b, commitStore(b))
	group := addGroup(b, st)
	changes := make([]*change, 2000)
	for i := range changes {
		changes[i] = &change{rec: messageRecord(group, 0, strings.Repeat("text ", 40))}
	}
	putTogether(st, changes...)
	b.ReportAllocs()
	for b.Loop() {
		l, err := st.List(group, All)
		if err != nil {
			b.Fatal(err)
		}
		for page, err := st.Page(l); len(page) > 0 || err != nil; page, err = st.Page(l) {
			if err != nil {
				b.Fatal(err)
			}
		}
		st.EndList(l)
	}
	b.ReportMetric(float64(b.N)*2000/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkDriver is what SQLite's driver can do by itself: the rows that posts of
// 200 bytes become, in transactions of so many. BenchmarkPost says how many there are
// in those of the server.
func BenchmarkDriver(b *testing.B) {
	for _, together := range []int{24, 32, 40, 60} {
		b.Run(strconv.Itoa(together), func(b *testing.B) { storeRows(b, together) })
	}
}

// storeRows stores so many rows in each transaction.
func storeRows(b *testing.B, together int) {
	o := commitStore(b)
	st, err := OpenSQLite(o)
	if err != nil {
		b.Fatal(err)
	}
	group := addGroup(b, st)
	if err := st.Close(); err != nil {
		b.Fatal(err)
	}
	db, err := openDatabase(filepath.Join(o.Folder, DatabaseFile))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	mustExec(b, db, fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", foldFrames))
	var s writeStmts
	own, err := prepareOn(db, s.texts())
	if err != nil {
		b.Fatal(err)
	}
	defer own.close()
	id, before := 0, written(b)
	for b.Loop() {
		_, err := s.begin.Exec()
		for range together {
			id++
			head, body := sealedColumn(40), sealedColumn(205)
			_, failed := s.addMessage.Exec(id, group, 0, int64(forEver), head, body, 1, len(head)+len(body))
			err = errors.Join(err, failed)
		}
		_, grown := s.growGroup.Exec(group, together, together)
		_, saved := s.saveState.Exec(0, 0, 0, id, 0, 0, 0, 0, make([]byte, 32), 0)
		_, committed := s.commit.Exec()
		if err := errors.Join(err, grown, saved, committed); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(id)/b.Elapsed().Seconds(), "posts/s")
	b.ReportMetric(float64(written(b)-before)/float64(id), "disk-B/post")
}

// sealedColumn is as long, and as random, as a column that is sealed.
func sealedColumn(plain int) []byte {
	column := make([]byte, plain+1+4+12+16) // format, key, nonce, tag: see sealer
	_, _ = rand.Read(column)
	return column
}

// written is how many bytes this process has had written to disks.
func written(b *testing.B) (n int64) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("there is no /proc/self/io here")
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return 0
}
