package main

import (
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
			if err := st.add(&post); err != nil {
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
		l, err := st.list(group, listAll)
		if err != nil {
			b.Fatal(err)
		}
		for page, err := st.page(l); len(page) > 0 || err != nil; page, err = st.page(l) {
			if err != nil {
				b.Fatal(err)
			}
		}
		st.endList(l)
	}
	b.ReportMetric(float64(b.N)*2000/b.Elapsed().Seconds(), "lines/s")
}
