package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// longAgo is a time that no file gets by being written to.
var longAgo = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// folderState is each file of a folder with its times and content. Whatever is
// written changes it, also where the same is written again.
func folderState(t testing.TB, folder string) map[string]string {
	t.Helper()
	state := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		state[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			state[path] += fmt.Sprintf(" %x", sha256.Sum256(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// age gives everything in a folder an old time.
func age(t testing.TB, folder string) {
	t.Helper()
	for path := range folderState(t, folder) {
		if err := os.Chtimes(path, longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
	}
}

// writesIn lets so many steps pass, with a heartbeat in each as a watchdog asks
// for them, and returns after which of them something had been written.
func (b *bubble) writesIn(steps int, step time.Duration) (after []int) {
	age(b.t, b.cfg.Server.Data)
	state := folderState(b.t, b.cfg.Server.Data)
	for n := 1; n <= steps; n++ {
		b.pass(step)
		b.store.Heartbeat()
		if now := folderState(b.t, b.cfg.Server.Data); !maps.Equal(now, state) {
			after = append(after, n)
			age(b.t, b.cfg.Server.Data)
			state = folderState(b.t, b.cfg.Server.Data)
		}
	}
	return after
}

// populate makes an account, a group and a message, and leaves their maker on.
func (b *bubble) populate() {
	c := b.guest("maker")
	c.Ask(`#createlogin maker pw "Real Name" mail@example.org`, "@status 0")
	c.Ask(`#creategroup News "" anon`, "@status 0")
	c.Ask("#joingroup News", "@status 0")
	c.Ask("#postmessage heading\r\ntext", "@status 0")
}

const minutesADay = 24 * 60

// TestIdleDay: a server on which people are and do nothing writes nothing in a
// day, and syncs nothing.
func TestIdleDay(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"commit", "periodic"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(firstWall.AddDate(1, 0, 0))) // a bubble begins in 2000
				cfg := testConfig(t)
				cfg.Persist.Mode = mode
				b := startBubble(t, cfg)
				b.populate()
				b.pass(time.Minute)
				if after := b.writesIn(minutesADay, time.Minute); len(after) > 0 {
					t.Errorf("something is written after minutes %v of a day", after)
				}
			})
		})
	}
}

// TestIdleDayWithoutTime: a machine that never learns the time of day keeps its
// clock after ten minutes, then each time after twice as long: 8 times in a day,
// 8 times more in a year.
func TestIdleDayWithoutTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		after := b.writesIn(minutesADay, time.Minute)
		want := []int{10, 20, 40, 80, 160, 320, 640, 1280}
		if len(after) != len(want) {
			t.Fatalf("something is written after minutes %v, want %v", after, want)
		}
		for i := range want {
			if after[i] < want[i] || after[i] > want[i]+1 { // the savers take two seconds
				t.Errorf("something is written after minutes %v, want %v", after, want)
			}
		}
		if days := b.writesIn(364, 24*time.Hour); len(days) != 8 {
			t.Errorf("in the rest of the year something is written after days %v", days)
		}
	})
}
