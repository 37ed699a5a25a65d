package segment

import (
	"io"
	"os"
)

// file is a segment's file, as far as it is used.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync returns when the disk has what was written.
	Sync() error
	// Allocate sets room for so many bytes aside, without growing the file, so
	// that writes into it need no more. A file system that can't says nothing.
	Allocate(size int64) error
}

// files is where segments are: the tests put a disk that fails in its place.
type files interface {
	create(path string) (file, error) // a new file
	open(path string) (f file, size int64, err error)
}

// disk is the operating system's files. They are this user's alone.
type disk struct{}

func (disk) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (disk) open(path string) (file, int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return osFile{f}, info.Size(), nil
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Allocate(size int64) error { return allocate(f.File, size) }
