package segment

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
)

// Chill leaves every ended stream to the disk.
func (s *Store) Chill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.cache.oldest(); e != nil; e = s.cache.oldest() {
		s.chill(e)
	}
}

// Crash ends the store as the end of its process does: nothing is sealed,
// synced or cut, and nothing of it can write any more.
func (s *Store) Crash() {
	close(s.closed)
	<-s.swept
	s.journal.turn.Lock()
	defer s.journal.turn.Unlock()
	s.journal.closed = true
	s.shelf.close()
	s.lock.Close()
}

// Crashed reports whether Crash, or Close, ended the store.
func (s *Store) Crashed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// Disk is a disk that can be full, or broken, under real files.
type Disk struct {
	mu     sync.Mutex
	free   int64         // guarded by mu
	broken error         // guarded by mu; what every write and sync returns
	files  []*diskFile   // guarded by mu
	hold   chan struct{} // guarded by mu; syncs wait until it is closed, if there is one
	syncs  int           // guarded by mu
}

func NewDisk(free int64) *Disk { return &Disk{free: free} }

// Under returns the options of a store on this disk.
func (d *Disk) Under(o Options) Options {
	o.files = d
	return o
}

func (d *Disk) create(path string) (file, error) {
	f, err := disk{}.create(path)
	if err != nil {
		return nil, err
	}
	return d.add(path, f, 0), nil
}

func (d *Disk) open(path string) (file, int64, error) {
	f, size, err := disk{}.open(path)
	if err != nil {
		return nil, 0, err
	}
	return d.add(path, f, size), size, nil
}

// add has the file on this disk. One that was there before a crash still has the
// room that was set aside for it.
func (d *Disk) add(path string, f file, size int64) *diskFile {
	d.mu.Lock()
	defer d.mu.Unlock()
	opened := &diskFile{file: f, path: path, disk: d, has: size, written: size, synced: size}
	for _, old := range d.files {
		if old.path == path {
			opened.has, opened.synced = old.has, old.synced
		}
	}
	d.files = append(d.files, opened)
	return opened
}

// LosePower takes from the files what was written since their last sync. The
// store on them must have crashed.
func (d *Disk) LosePower() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		if err := os.Truncate(f.path, f.synced); err != nil {
			return err
		}
	}
	return nil
}

// Free makes room, or takes it away.
func (d *Disk) Free(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = bytes
}

// Break makes every write fail with err; nil repairs the disk.
func (d *Disk) Break(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = err
}

func (d *Disk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

// take sets bytes aside for a file, or gives some back.
func (d *Disk) take(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > d.free {
		d.reclaim()
	}
	if bytes > d.free {
		return syscall.ENOSPC
	}
	d.free -= bytes
	return nil
}

// reclaim has the room of removed files free again. The caller holds mu.
func (d *Disk) reclaim() {
	d.files = slices.DeleteFunc(d.files, func(f *diskFile) bool {
		_, err := os.Stat(f.path)
		if err != nil {
			d.free += f.has
		}
		return err != nil
	})
}

type diskFile struct {
	file
	path string
	disk *Disk
	has  int64

	written, synced int64 // guarded by disk.mu
}

func (f *diskFile) Allocate(size int64) error {
	if size <= f.has {
		return nil
	}
	if err := f.disk.take(size - f.has); err != nil {
		return err
	}
	f.has = size
	return nil
}

func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.disk.failure(); err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], at) // a part of it gets there
		return n, err
	}
	if err := f.Allocate(at + int64(len(p))); err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], at)
		return n, err
	}
	f.disk.mu.Lock()
	f.written = max(f.written, at+int64(len(p)))
	f.disk.mu.Unlock()
	return f.file.WriteAt(p, at)
}

func (f *diskFile) Sync() error {
	if err := f.disk.failure(); err != nil {
		return err
	}
	// The real file need not: that this was called is what counts.
	f.disk.mu.Lock()
	written, hold := f.written, f.disk.hold
	f.disk.syncs++
	f.disk.mu.Unlock()
	if hold != nil {
		<-hold
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.synced = written
	return nil
}

func (f *diskFile) Truncate(size int64) error {
	if size < f.has {
		f.disk.take(size - f.has)
		f.has = size
	}
	return f.file.Truncate(size)
}

// WarmBytes is what streams take in memory.
func (s *Store) WarmBytes() int64 { return s.warmBytes.Load() }

// DeleteHalf deletes a stream as far as a crash after n of its records lets it.
func (s *Store) DeleteHalf(id string, n int) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	if err := s.journal.commit(newTombstone(e, kindDeleted).commit()); err != nil {
		return err
	}
	enough := errors.New("enough")
	err = s.chain(e.last, func(r record) error {
		if n--; n < 0 {
			return enough
		}
		return s.eraseRecord(r)
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// TakeAll takes what is free, and the room that was set aside for the ends of the
// streams of a store.
func (d *Disk) TakeAll(s *Store) {
	s.journal.turn.Lock()
	defer s.journal.turn.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = 0
	for _, f := range d.files {
		f.has = f.written
	}
}

// HoldSyncs holds up every sync until resume is called, which returns what
// tells how many there were since.
func (d *Disk) HoldSyncs() (resume func() (syncs func() int)) {
	held := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold, d.syncs = held, 0
	return func() func() int {
		close(held)
		return func() int {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.syncs
		}
	}
}

// Watched calls see whenever a segment has been opened.
func Watched(o Options, see func()) Options {
	o.files = watchedFiles{see}
	return o
}

type watchedFiles struct{ see func() }

func (watchedFiles) create(path string) (file, error) { return disk{}.create(path) }

func (w watchedFiles) open(path string) (file, int64, error) {
	w.see()
	return disk{}.open(path)
}

// EvictHalf leaves a stream's tombstone as an eviction does that fails after it.
func (s *Store) EvictHalf(id string) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	g := newTombstone(e, kindEvicted)
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.commitGraves([]*tombstone{g})
	s.shelf.release(&g.span)
	return err
}

// DeleteWhileEvicted deletes a stream that is evicted after it was found.
func (s *Store) DeleteWhileEvicted(id string) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	err = s.evict([]*entry{e})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.delete(e)
}

// Pending is how many creates are on their way to the disk.
func (s *Store) Pending() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.streams {
		if e.pending {
			n++
		}
	}
	return n
}
