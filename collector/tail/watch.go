package tail

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pace is the least time between two wake-ups: a log that is written to a
// thousand times a second need not wake us as often. While nobody takes events,
// the system folds those of one file into one.
const pace = 20 * time.Millisecond

// watcher wakes who waits for files to change.
type watcher struct {
	notify *fsnotify.Watcher // nil: there is none to be had, time alone wakes
	woke   time.Time
}

// newNotify is replaced by tests.
var newNotify = fsnotify.NewWatcher

func newWatcher(logger *slog.Logger) *watcher {
	notify, err := newNotify()
	if err != nil {
		logger.Info("changes of the log are polled for: the system gives no notice of them", "error", err)
		return new(watcher)
	}
	return &watcher{notify: notify}
}

// watch watches the directories of the files that are named. It may be called
// again and again: a directory may not exist yet, or be another one now.
func (w *watcher) watch(names ...string) {
	if w.notify == nil {
		return
	}
	for _, name := range names {
		// Where it fails, polling goes on.
		_ = w.notify.Add(filepath.Dir(name))
	}
}

// wait returns when something in the directories changed, and after d at the
// latest.
func (w *watcher) wait(u until, d time.Duration) error {
	if early := pace - time.Since(w.woke); early > 0 {
		if err := u.sleep(min(early, d), nil); err != nil {
			return err
		}
	}
	err := w.event(u, d)
	w.woke = time.Now()
	return err
}

func (w *watcher) event(u until, d time.Duration) error {
	if w.notify == nil {
		return u.sleep(d, nil)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.notify.Events:
		w.drain()
	case <-w.notify.Errors: // events were lost: look for ourselves
	case <-timer.C:
	case <-u.closed:
	case <-u.ctx.Done():
	}
	return u.err()
}

// drain takes the events that wait: one look at the files answers them all.
func (w *watcher) drain() {
	for {
		select {
		case <-w.notify.Events:
		case <-w.notify.Errors:
		default:
			return
		}
	}
}

func (w *watcher) close() error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Close()
}
