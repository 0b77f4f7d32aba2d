package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
	"homeroom/test/storetest"
)

func TestRoomExpires(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		c.Ask("#createroom den", "@status 0")
		before := c.Number("arch")
		c.WantLeft("#listrooms", "den", 1800)
		b.pass(10*time.Minute + 500*time.Millisecond)
		c.WantLeft("#listrooms", "den", 1200)
		b.pass(20*time.Minute - 501*time.Millisecond)
		c.WantLeft("#listrooms", "den", 1)
		if c.Number("arch") != before {
			t.Error("#archstatus changed before the room expired")
		}
		b.pass(time.Millisecond)
		c.WantLeft("#listrooms", "den", -1)
		if c.Number("arch") <= before {
			t.Error("#archstatus did not change when the room expired")
		}
		c.Ask("#changeroom den", "@status 3100")
		c.Ask("#createroom den", "@status 0")
		c.WantLeft("#listrooms", "den", 1800)
	})
}

// TestOccupiedRoom: a room does not expire while somebody is in it, and then
// has its whole time again. Home never expires.
func TestOccupiedRoom(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c, other := b.guest("alice"), b.guest("bob")
		c.Ask("#createroom den", "@status 0")
		b.pass(29 * time.Minute)
		c.Ask("#changeroom den", "@status 0")
		b.pass(100 * 24 * time.Hour)
		c.WantLeft("#listrooms", "den", 0)
		c.WantLeft("#listrooms", "Home", 0)
		other.Ask("#changeroom den", "@status 0")
		c.Ask("#changeroom Home", "@status 0")
		b.pass(time.Hour)
		c.WantLeft("#listrooms", "den", 0)
		other.Conn.Close()
		synctest.Wait()
		c.WantLeft("#listrooms", "den", 1800)
		b.pass(30*time.Minute - time.Millisecond)
		c.WantLeft("#listrooms", "den", 1)
		b.pass(time.Millisecond)
		c.WantLeft("#listrooms", "den", -1)
		c.Ask("#quit", "@status 0")
		b.pass(1000 * 24 * time.Hour)
		b.guest("late").WantLeft("#listrooms", "Home", 0)
	})
}

// TestRoomsExpireInOrder: many rooms with one timer, each at its own time.
func TestRoomsExpireInOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		for i := range 20 {
			c.Ask(fmt.Sprintf("#createroom room%d", i), "@status 0")
			b.pass(time.Minute)
		}
		b.pass(9 * time.Minute)
		for i := range 20 {
			b.pass(time.Minute - time.Millisecond)
			c.WantLeft("#listrooms", fmt.Sprintf("room%d", i), 1)
			b.pass(time.Millisecond)
			c.WantLeft("#listrooms", fmt.Sprintf("room%d", i), -1)
			if left := len(b.rooms.all()) - 1; left != 19-i {
				t.Errorf("%d rooms are left, want %d", left, 19-i)
			}
		}
	})
}

func TestRoomsNeverExpire(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		c.Ask("#createroom den", "@status 0")
		b.pass(10_000 * 24 * time.Hour)
		c.WantLeft("#listrooms", "den", 0)
	}, func(cfg *config) { cfg.Expiry.Room = duration{} })
}

func TestGroupExpires(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c, other := b.guest("alice"), b.guest("bob")
		c.Ask(`#creategroup talk "" anon 3600`, "@status 0")
		c.WantLeft("#listgroups", "talk", 3600)
		b.pass(50 * time.Minute)
		c.Ask("#joingroup talk", "@status 0")
		other.Ask("#joingroup talk", "@status 0")
		post := c.Post("hello", 0, 0)
		c.Post("answer", post, 0)
		before := c.Number("group")
		b.pass(20 * time.Hour)
		c.WantLeft("#listgroups", "talk", 0)
		c.Ask("#leavegroup", "@status 0")
		b.pass(2 * time.Hour)
		c.WantLeft("#listgroups", "talk", 0)
		other.Ask("#leavegroup", "@status 0")
		c.WantLeft("#listgroups", "talk", 3600)
		b.pass(time.Hour - time.Millisecond)
		c.WantLeft("#listgroups", "talk", 1)
		if c.Number("group") != before {
			t.Error("#groupstatus changed before the group expired")
		}
		b.pass(time.Millisecond)
		c.WantLeft("#listgroups", "talk", -1)
		if c.Number("group") <= before {
			t.Error("#groupstatus did not change when the group expired")
		}
		c.Ask("#joingroup talk", "@status -3")
		if n := storetest.CountRows(t, b.cfg.Server.Data, "messages") + storetest.CountRows(t, b.cfg.Server.Data, "groups"); n != 0 {
			t.Errorf("%d rows of the group and its messages are still stored", n)
		}
		if n := b.messages.stored.Load(); n != 0 {
			t.Errorf("%d messages count against the limit, want none", n)
		}
	})
}

// TestTimesHaveDefaultsAndBounds: no time and 0 are the setting's, and max caps
// every time.
func TestTimesHaveDefaultsAndBounds(t *testing.T) {
	t.Parallel()
	const week, year = 7 * 24 * 3600, 365 * 24 * 3600
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		for name, test := range map[string]struct {
			words string
			want  int64
		}{
			"none": {"", week}, "zero": {` "" anon 0`, week}, "short": {` "" anon 1`, 1},
			"long": {` "" anon ` + strconv.Itoa(year), year}, "longer": {` "" anon ` + strconv.Itoa(year+1), year},
			"huge": {` "" anon 99999999999999999999`, year},
		} {
			c.Ask("#creategroup "+name+test.words, "@status 0")
			c.WantLeft("#listgroups", name, test.want)
		}
		c.Ask(`#creategroup bad "" anon -1`, "@status 3504")
		c.Ask("#joingroup huge", "@status 0")
		for heading, test := range map[string]struct{ secs, want int64 }{
			"zero": {0, 30 * 24 * 3600}, "short": {5, 5}, "huge": {1 << 62, year},
		} {
			c.Post(heading, 0, test.secs)
			c.WantLeft("#listmessages", heading, test.want)
		}
		c.Ask("#postmessage none\r\ntext", "@status 0")
		c.WantLeft("#listmessages", "none", 30*24*3600)
	})
}

// TestNoBounds: with max switched off a time may be for ever.
func TestNoBounds(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		c.Ask(`#creategroup talk "" anon`, "@status 0")
		c.Ask("#joingroup talk", "@status 0")
		c.Post("hello", 0, 0)
		c.Ask("#leavegroup", "@status 0")
		b.pass(10_000 * 24 * time.Hour)
		c.WantLeft("#listgroups", "talk", 0)
		c.Ask("#joingroup talk", "@status 0")
		c.WantLeft("#listmessages", "hello", 0)
	}, func(cfg *config) {
		cfg.Expiry.Group, cfg.Expiry.Message, cfg.Expiry.Max = duration{}, duration{}, duration{}
	})
}

// TestThreadExpires: a message takes its answers along at any depth, and
// nothing else.
func TestThreadExpires(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		c.Ask(`#creategroup talk "" anon`, "@status 0")
		c.Ask("#joingroup talk", "@status 0")
		top, other := c.Post("top", 0, 600), c.Post("other", 0, 1200)
		var gone []string
		for parent, depth := top, 0; depth < 30; depth++ {
			gone = append(gone, fmt.Sprintf("@mess #deleted talk %d", parent))
			parent = c.Post(fmt.Sprintf("depth%d", depth), parent, 0)
			if depth == 29 {
				gone = append(gone, fmt.Sprintf("@mess #deleted talk %d", parent))
			}
		}
		answer := c.Post("answer", other, 0)
		c.WantLeft("#listmessages", "top", 600)
		c.WantLeft("#listmessages", "depth29", 0)
		c.Ask(fmt.Sprintf("#postmessage own %d 1 60\r\ntext", top), "@status 3504")
		c.Ask("#events on", "@status 0")
		before := c.Number("message")
		b.pass(600*time.Second - time.Millisecond)
		c.WantLeft("#listmessages", "top", 1)
		if c.Number("message") != before {
			t.Error("#messagestatus changed before the message expired")
		}
		b.pass(time.Millisecond)
		events := c.Barrier()
		if slices.Sort(gone); !slices.Equal(slices.Sorted(slices.Values(events)), gone) {
			t.Errorf("events %q, want %q", events, gone)
		}
		if c.Number("message") <= before {
			t.Error("#messagestatus did not change when the message expired")
		}
		c.Ask("#listmessages", "@ret #listmessages 2",
			fmt.Sprintf("other alice %d 0 1 600", other), fmt.Sprintf("answer alice %d %d 0 0", answer, other))
		c.Ask(fmt.Sprintf("#getmessage %d", top), "@status -3")
		c.Ask(fmt.Sprintf("#postmessage late %d\r\ntext", top), "@status -3")
		if words := c.Listed("#listgroups", "talk"); words[3] != "2" {
			t.Errorf("the group shows %q, want 2 messages", words)
		}
		if n := storetest.CountRows(t, b.cfg.Server.Data, "messages"); n != 2 {
			t.Errorf("%d messages are stored, want 2", n)
		}
	})
}

// TestExpiryEndsAtOnce: what has ended is out of every reply from that moment
// on, also where it cannot be deleted yet because a list is being read.
func TestExpiryEndsAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.guest("alice")
		c.Ask(`#creategroup talk "" anon`, "@status 0")
		c.Ask("#joingroup talk", "@status 0")
		id := c.Post("short", 0, 60)
		list, err := b.store.List(c.GroupID(), store.All)
		if err != nil || list.Count != 1 {
			t.Fatalf("the list has %d messages (%v), want 1", list.Count, err)
		}
		b.pass(time.Minute)
		c.Ask("#listmessages", "@ret #listmessages 0")
		c.Ask("#listmessages 0", "@ret #listmessages 0")
		c.Ask(fmt.Sprintf("#listmessages %d", id), "@status -3")
		c.Ask(fmt.Sprintf("#getmessage %d", id), "@status -3")
		c.Ask(fmt.Sprintf("#postmessage late %d\r\ntext", id), "@status -3")
		page, err := b.store.Page(list)
		if err != nil || len(page) != 1 {
			t.Errorf("the list that was begun before has %d messages (%v), want 1", len(page), err)
		}
		b.store.EndList(list)
		b.pass(heldRetry * time.Millisecond)
		if n := storetest.CountRows(t, b.cfg.Server.Data, "messages"); n != 0 {
			t.Errorf("%d messages are stored after the list was read, want none", n)
		}
	})
}

// TestExpiryOverRestart: what is left of a time goes on after a restart, less
// the time in between where the wall clock can be believed.
func TestExpiryOverRestart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		until    time.Time // when it starts
		believed bool
	}{
		{"the time is not set", time.Time{}, false},
		{"the time is set", firstWall.AddDate(1, 0, 0), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(test.until))
				b := startBubble(t, testConfig(t))
				c := b.guest("alice")
				c.Ask("#createroom den", "@status 0")
				c.Ask(`#creategroup talk "" anon 3600`, "@status 0")
				c.Ask("#joingroup talk", "@status 0")
				c.Post("hello", 0, 7200)
				c.Ask("#leavegroup", "@status 0")
				before := c.Number("arch")
				b.pass(10 * time.Minute)
				b = b.restart(15 * time.Minute)
				c = b.guest("alice")
				off := int64(0)
				if test.believed {
					off = 900
				}
				c.WantLeft("#listrooms", "den", 1200-off)
				c.WantLeft("#listgroups", "talk", 3000-off)
				if n := c.Number("arch"); n <= before {
					t.Errorf("#archstatus is %d after the restart, it was %d before", n, before)
				}
				b.pass(time.Duration(1200-off)*time.Second - time.Millisecond)
				c.WantLeft("#listrooms", "den", 1)
				b.pass(time.Millisecond)
				c.WantLeft("#listrooms", "den", -1)
				c.Ask("#joingroup talk", "@status 0")
				c.WantLeft("#listmessages", "hello", 7200-600-1200)
			})
		})
	}
}

// TestExpiredWhileOff: what ended while the server was off is gone when it is
// back; nothing else is.
func TestExpiredWhileOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(firstWall.AddDate(1, 0, 0)))
		b := startBubble(t, testConfig(t))
		c := b.guest("alice")
		c.Ask("#createroom den", "@status 0")
		c.Ask(`#creategroup short "" anon 60`, "@status 0")
		c.Ask(`#creategroup long "" anon 86400`, "@status 0")
		c.Ask("#joingroup long", "@status 0")
		top := c.Post("top", 0, 60)
		c.Post("answer", top, 0)
		c.Post("stays", 0, 86400)
		b = b.restart(2 * time.Hour)
		synctest.Wait()
		c = b.guest("alice")
		c.WantLeft("#listrooms", "den", -1)
		c.WantLeft("#listgroups", "short", -1)
		c.WantLeft("#listgroups", "long", 86400-7200)
		c.Ask("#joingroup long", "@status 0")
		c.WantLeft("#listmessages", "stays", 86400-7200)
		if n := storetest.CountRows(t, b.cfg.Server.Data, "messages"); n != 1 {
			t.Errorf("%d messages are stored, want 1", n)
		}
	})
}

// refusingStore is a store that cannot delete while refuses is set.
type refusingStore struct {
	store.Store
	refuses atomic.Bool
}

func (s *refusingStore) Remove(k store.Kind, id int64) error {
	if s.refuses.Load() {
		return errors.New("the disk is on fire")
	}
	return s.Store.Remove(k, id)
}

// TestExpiryIsTriedAgain: a room that cannot be deleted can be used meanwhile,
// and is deleted once that works.
func TestExpiryIsTriedAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		synctest.Wait()
		broken := &refusingStore{Store: b.store}
		broken.refuses.Store(true)
		b.rooms.store = broken
		c := b.guest("alice")
		c.Ask("#createroom den", "@status 0")
		b.pass(30 * time.Minute)
		c.WantLeft("#listrooms", "den", 1)
		c.Ask("#rmroom den", "@status -1")
		c.Ask("#changeroom den", "@status 0")
		broken.refuses.Store(false)
		b.pass(time.Hour)
		c.WantLeft("#listrooms", "den", 0)
		broken.refuses.Store(true)
		c.Ask("#changeroom Home", "@status 0")
		b.pass(30 * time.Minute)
		c.WantLeft("#listrooms", "den", 1)
		broken.refuses.Store(false)
		b.pass(retryExpiry * time.Millisecond)
		c.WantLeft("#listrooms", "den", -1)
	})
}
