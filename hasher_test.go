package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// hold takes all cores, so that who wants a password hashed waits until they are
// released. No password is being hashed.
func (h *hasher) hold() (release func()) {
	cores := h.free
	for range cores {
		h.begin(netip.Prefix{})
	}
	return func() {
		for range cores {
			h.end()
		}
	}
}

// TestHashersTurns: while one core hashes, four may wait. An address that has them
// all gives way to others, up to the same share, and they are served by turns.
func TestHashersTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, busy := &hasher{most: 4, free: 1}, make(chan struct{})
		var served, refused []string
		come := func(from string) {
			go func() {
				address := netip.MustParsePrefix(from)
				if err := h.do(address, func() { served = append(served, from) }); isStatus(err, statusThrottled) {
					refused = append(refused, from) // not at the same time as another: the test waits
				} else if err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		go func() { _ = h.do(netip.Prefix{}, func() { <-busy }) }()
		synctest.Wait()
		const thief, alice, bob = "192.0.2.1/32", "192.0.2.2/32", "2001:db8::/64"
		for _, from := range []string{thief, thief, thief, thief, thief, alice, alice, alice, bob} {
			come(from)
		}
		// The fifth of the thief finds no room; alice takes two of its places; her third finds
		// none, since she has as many; bob takes the last of hers, which came after the thief's.
		if want := []string{thief, thief, thief, alice, alice}; !slices.Equal(refused, want) {
			t.Errorf("refused: %s, want %s", strings.Join(refused, " "), strings.Join(want, " "))
		}
		close(busy)
		synctest.Wait()
		if want := []string{thief, alice, thief, bob}; !slices.Equal(served, want) {
			t.Errorf("served: %s, want %s", strings.Join(served, " "), strings.Join(want, " "))
		}
		if h.free != 1 || len(h.queue) != 0 {
			t.Errorf("%d cores are free and %d wait, want 1 and 0", h.free, len(h.queue))
		}
	})
}
