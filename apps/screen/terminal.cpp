// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/terminal.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#define NCURSES_NOMACROS 1  // "clear", "move" and the like are ordinary names elsewhere
#include <curses.h>

namespace tandem::screen {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH};
constexpr short kPairO = 1, kPairX = 2;

// What came since it was last looked at.
volatile std::sig_atomic_t end_signal = 0, stop_wanted = 0, continued = 0, resized = 0;

void note_signal(int signal) {
  switch (signal) {
    case SIGTSTP:
      stop_wanted = 1;
      break;
    case SIGCONT:
      continued = 1;
      break;
    case SIGWINCH:
      resized = 1;
      break;
    default:
      end_signal = signal;
  }
}

bool colours_wanted() {
  const char* const none = std::getenv("NO_COLOR");
  return none == nullptr || *none == '\0';
}

attr_t attributes(Style style) {
  const auto has = [style](Style bit) { return (style & bit) != 0; };
  attr_t result = A_NORMAL;
  if (has(kBold)) result |= A_BOLD;
  if (has(kUnderlined)) result |= A_UNDERLINE;
  if (has(kReversed)) result |= A_REVERSE;
  if (has(kDim)) result |= A_DIM;
  if (has(kInkO)) result |= static_cast<attr_t>(COLOR_PAIR(kPairO));
  if (has(kInkX)) result |= static_cast<attr_t>(COLOR_PAIR(kPairX));
  return result;
}

/// Keys without the terminal's own meaning of ^Q and ^S; ^C and ^Z keep theirs.
void set_modes() {
  ::cbreak();
  ::noecho();
  ::nodelay(stdscr, TRUE);
  ::keypad(stdscr, TRUE);
  ::curs_set(0);
  termios modes{};
  if (::tcgetattr(STDIN_FILENO, &modes) == 0) {
    modes.c_iflag &= ~static_cast<tcflag_t>(IXON);
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &modes);
  }
  ::def_prog_mode();
}

}  // namespace

struct Terminal::Saved {
  SCREEN* screen = nullptr;
  std::array<struct sigaction, kSignals.size()> actions{};
};

Result<std::unique_ptr<Terminal>, std::string> Terminal::open() {
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    return Unexpected{std::string("input and output are no terminal; try: --plain")};
  }
  const char* const type = std::getenv("TERM");
  std::unique_ptr<Terminal> terminal(new Terminal);
  auto saved = std::make_unique<Saved>();
  end_signal = 0;
  stop_wanted = 0;
  continued = 0;
  resized = 0;
  // Before curses looks, which leaves those alone that somebody handles.
  struct sigaction note {};
  note.sa_handler = note_signal;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &note, &saved->actions[i]);
  }
  // The terminal knows its size; LINES and COLUMNS say what that once was.
  ::use_env(FALSE);
  ::use_tioctl(TRUE);
  saved->screen = ::newterm(nullptr, stdout, stdin);
  if (saved->screen == nullptr || ::tigetstr("cup") == nullptr) {
    if (saved->screen != nullptr) ::endwin();
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &saved->actions[i], nullptr);
    }
    return Unexpected{"the terminal type TERM=" + std::string(type != nullptr ? type : "") +
                      " has no screen; try: --plain, or another TERM"};
  }
  terminal->saved_ = std::move(saved);
  ::set_escdelay(25);
  set_modes();
  if (colours_wanted() && ::has_colors()) {
    ::start_color();
    ::use_default_colors();
    ::init_pair(kPairO, COLOR_CYAN, -1);
    ::init_pair(kPairX, COLOR_YELLOW, -1);
  }
  return terminal;
}

Terminal::~Terminal() {
  if (saved_ == nullptr) return;
  ::endwin();
  ::delscreen(saved_->screen);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &saved_->actions[i], nullptr);
  }
}

Size Terminal::size() const { return {getmaxy(stdscr), getmaxx(stdscr)}; }

void Terminal::show(const Canvas& canvas) {
  ::werase(stdscr);
  for (int row = 0; row < canvas.size().rows; ++row) {
    for (int column = 0; column < canvas.size().columns; ++column) {
      const auto& square = canvas.at(row, column);
      if (square == Canvas::Square{}) continue;
      ::wmove(stdscr, row, column);
      ::waddch(stdscr, static_cast<chtype>(square.character) | attributes(square.style));
    }
  }
  ::wrefresh(stdscr);
}

void Terminal::handle_signals() {
  if (stop_wanted != 0) {
    stop_wanted = 0;
    ::endwin();
    std::signal(SIGTSTP, SIG_DFL);
    ::raise(SIGTSTP);  // here we stand until somebody continues us
    struct sigaction note {};
    note.sa_handler = note_signal;
    ::sigaction(SIGTSTP, &note, nullptr);
    continued = 1;
  }
  if (continued != 0) {
    continued = 0;
    resized = 1;
    ::reset_prog_mode();
    set_modes();
    ::clearok(curscr, TRUE);
  }
  if (resized != 0) {
    resized = 0;
    winsize now{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) == 0 && now.ws_row > 0 && now.ws_col > 0) {
      ::resizeterm(now.ws_row, now.ws_col);
    }
  }
}

int Terminal::read_key() {
  const int key = ::wgetch(stdscr);
  switch (key) {
    case ERR:
      return kNoKey;
    case KEY_UP:
      return kUp;
    case KEY_DOWN:
      return kDown;
    case KEY_LEFT:
      return kLeft;
    case KEY_RIGHT:
      return kRight;
    case KEY_PPAGE:
      return kPageUp;
    case KEY_NPAGE:
      return kPageDown;
    case KEY_HOME:
      return kHome;
    case KEY_END:
      return kEnd;
    case KEY_ENTER:
    case '\r':
      return kEnter;
    case KEY_BACKSPACE:
    case 127:
      return kBackspace;
    default:
      return key < 256 ? key : kNoKey;
  }
}

int Terminal::key(std::chrono::milliseconds longest) {
  handle_signals();
  if (const int key = read_key(); key != kNoKey) return key;
  if (end_signal != 0) return kNoKey;
  pollfd input{STDIN_FILENO, POLLIN, 0};
  const int ready = ::poll(&input, 1, static_cast<int>(longest.count()));
  handle_signals();
  if (ready <= 0) return kNoKey;
  const int key = read_key();
  // Readable without a key: the terminal is gone.
  if (key == kNoKey && (input.revents & (POLLHUP | POLLERR)) != 0) end_signal = SIGHUP;
  return key;
}

int Terminal::ended_by() {
  handle_signals();
  return end_signal;
}

}  // namespace tandem::screen
