package store

import (
	"bytes"
	"testing"
)

// FuzzSealed: what was not sealed here does not open, whatever it looks like.
func FuzzSealed(f *testing.F) {
	ring := testRing(f, 2)
	seal := sealer{ring: ring}
	r := Record{Kind: Message, ID: 7, Head: []byte("heading"), Body: []byte("text")}
	head, body := seal.record(&r)
	head, body = bytes.Clone(head), bytes.Clone(body)
	f.Add(head, int64(7))
	f.Add(body[:len(body)-1], int64(7))
	f.Add([]byte{sealFormat, 0, 0, 0, 1}, int64(1))
	f.Fuzz(func(t *testing.T, sealed []byte, id int64) {
		got := Record{Kind: Message, ID: id, Head: bytes.Clone(sealed)}
		err := seal.open(&got)
		if err == nil && sealed != nil && (id != r.ID || string(got.Head) != "heading") {
			t.Fatalf("%x of message %d: %q, %v", sealed, id, got.Head, err)
		}
	})
}
