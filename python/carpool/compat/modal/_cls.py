"""`Cls` and its objects: a class whose methods are called through `.remote` and its like."""

from __future__ import annotations

import atexit
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

from carpool.compat._front import ProcessLock, is_coroutine_function
from carpool.compat._home import Home

from ._checks import Batching, batching, concurrency, known_options
from ._cloud import tell_ignored
from ._function import Function
from ._partial import Partial
from .exception import InvalidError

__all__ = ["Cls", "Container", "Obj", "parameter"]

_MISSING: Any = object()

#: How long the end of the process waits for calls in flight before `exit` methods run, in seconds.
EXIT_S = 1.0


class _Parameter:
    def __init__(self, default: Any, init: bool) -> None:
        self.default = default
        self.init = init

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.default is _MISSING:
            raise AttributeError("field has no default value and no specified value")
        return self.default


def parameter(*, default: Any = _MISSING, init: bool = True) -> Any:
    """A field of a class that its constructor takes by name; with `init=False`, one that only has a default."""
    return _Parameter(default, init)


def _partials_of(user_cls: type) -> dict[str, Partial]:
    """By name the decorated methods of a class and its bases, in the order of their definition."""
    found: dict[str, Any] = {}
    for kind in reversed(user_cls.__mro__):
        found.update({name: value for name, value in vars(kind).items() if name[:2] != "__"})
    return {name: value for name, value in found.items() if isinstance(value, Partial)}


def _construct(user_cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = {
        name: value
        for kind in reversed(user_cls.__mro__)
        for name, value in vars(kind).items()
        if isinstance(value, _Parameter)
    }
    if not names:
        return user_cls(*args, **kwargs)
    if args:
        raise InvalidError(
            "Can't use positional arguments with modal.parameter-based synthetic constructors.\n"
            "Use (<parameter_name>=value) keyword arguments when constructing classes instead."
        )
    made = user_cls()
    for name, field in names.items():
        value = kwargs.pop(name, field.default) if field.init else field.default
        if value is _MISSING:
            raise InvalidError(f"{user_cls.__name__} needs its parameter {name!r}.")
        setattr(made, name, value)
    if kwargs:
        raise InvalidError(f"{user_cls.__name__} has no parameter {next(iter(kwargs))!r}.")
    return made


class Container:
    """The one instance of a class for its arguments in this process, with its functions and its event loop."""

    def __init__(self, cls: Cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._cls, self._args, self._kwargs = cls, args, kwargs
        self.home = Home(f"modal {cls.__name__}")
        self._lock = ProcessLock()
        self._instance: Any = None
        self._process = 0
        self._ready = False
        #: Which process and thread runs `enter` methods now.
        self._entering: tuple[int, int] | None = None
        self.functions: dict[str, Function] = {}
        for name, partial in cls.partials.items():
            if partial.is_callable:
                self.functions[name] = Function(
                    partial.function,
                    batching=cls.batching or partial.batching,
                    max_inputs=cls.max_inputs or partial.max_inputs or 1,
                    web=partial.web,
                    container=self,
                )

    def function_of(self, partial: Partial) -> Function:
        """What became of a decorated method."""
        partials = self._cls.partials
        return next(one for name, one in self.functions.items() if partials[name] is partial)

    def name_of(self, function: Function) -> str:
        """Under which name the class has a function of this object."""
        return next(name for name, one in self.functions.items() if one is function)

    @property
    def handle(self) -> Obj:
        """What calls go through."""
        return Obj(self)

    @property
    def instance(self) -> Any:
        """The user's instance; `enter` has run."""
        self.enter()
        return self._instance

    def enter(self) -> None:
        """Makes the instance and runs what is marked by `enter`, once.

        Raises:
            Exception: what one of those raised; the next use tries anew.
        """
        if self._ready or self._is_entering_here():
            return
        with self._lock:
            if self._ready:
                return  # type: ignore[unreachable]  # another thread was faster
            made = _construct(self._cls.user_cls, self._args, dict(self._kwargs))
            made._modal_container = self
            # In a forked child an instance may be left over that was being entered in the parent: it is dropped.
            self._instance, self._entering = made, (os.getpid(), threading.get_ident())
            try:
                self._run_all(lambda partial: partial.is_enter)
            except BaseException:
                self._instance = None
                raise
            finally:
                self._entering = None
            self._process = os.getpid()
            if any(partial.is_exit for partial in self._cls.partials.values()):
                atexit.register(self._at_exit)
            self._ready = True

    def _is_entering_here(self) -> bool:
        """Whether this code runs in an `enter` method of this object."""
        entering = self._entering
        if entering is None or entering[0] != os.getpid():
            return False
        return threading.get_ident() == entering[1] or self.home.is_here

    def _run_all(self, wanted: Callable[[Partial], bool]) -> None:
        for partial in self._cls.partials.values():
            if wanted(partial):
                made = partial.function(self._instance)
                if is_coroutine_function(partial.function):
                    self.home.run(made)

    def _at_exit(self) -> None:
        self.stop(EXIT_S)

    def stop(self, timeout: float | None = None) -> None:
        """Answers what was accepted, for at most `timeout` seconds, then runs what is marked by `exit`. A later call
        makes a new instance."""
        for function in self.functions.values():
            function.stop(timeout)
        with self._lock:
            try:
                # A forked child has the instance of its parent, whose end is the parent's.
                if self._ready and self._process == os.getpid():
                    atexit.unregister(self._at_exit)
                    self._run_all(lambda partial: partial.is_exit)
            finally:
                self._ready, self._instance = False, None
                self.home.stop()


class Obj:
    """An object of a `Cls`. Its methods have `.remote` and its like; other attributes are those of the instance."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        if name == "_container":  # being unpickled
            raise AttributeError(name)
        found = self._container.functions.get(name)
        return found if found is not None else getattr(self._container.instance, name)

    def __reduce__(self) -> Any:
        container = self._container
        return _remake, (container._cls, container._args, container._kwargs)

    def __repr__(self) -> str:
        return f"<carpool.compat.modal.Obj {self._container._cls.__name__}>"


def _key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Equal for equal arguments of the same types; of what can neither be hashed nor pickled never."""
    named = sorted(kwargs.items())
    key: Any = tuple((type(one), one) for one in args), tuple((k, type(v), v) for k, v in named)
    try:
        hash(key)
    except TypeError:
        try:
            return pickle.dumps((args, named))
        except Exception:
            return object()
    return key


def _remake(cls: Cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Obj:
    return cls(*args, **kwargs)


class Cls:
    """What `App.cls` makes of a class. Called with the same arguments it gives the same object.

    Raises:
        InvalidError: the class has a batched method and others that can be called.
    """

    #: What made it.
    _modal_decorator = "app.cls()"

    def __init__(
        self,
        user_cls: type,
        *,
        batching: Batching | None = None,
        max_inputs: int | None = None,
    ) -> None:
        self.user_cls, self.batching = user_cls, batching
        self.max_inputs: int | None = max_inputs or getattr(user_cls, "_modal_max_inputs", None)
        self.partials = _partials_of(user_cls)
        self.__name__, self.__doc__ = user_cls.__name__, user_cls.__doc__
        self.__module__, self.__qualname__ = user_cls.__module__, user_cls.__qualname__
        self._lock = ProcessLock()
        self._containers: dict[Any, Container] = {}
        batches = [one for one in self.partials.values() if one.batching is not None]
        if len(batches) > 1:
            raise InvalidError(f"Modal class {self.__name__} can only have one batched function.")
        if batches and sum(one.is_callable for one in self.partials.values()) > 1:
            raise InvalidError(
                f"Modal class {self.__name__} with a modal batched function cannot have other modal methods."
            )
        # What is wrong with a method is told where it is defined.
        Container(self, (), {})

    def __call__(self, *args: Any, **kwargs: Any) -> Obj:
        key = _key_of(args, kwargs)
        with self._lock:
            if key not in self._containers:
                self._containers[key] = Container(self, args, kwargs)
            return self._containers[key].handle

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("partials", ()):
            raise AttributeError(
                f"You can't access methods on a Cls directly - Did you forget to instantiate the class first?\n"
                f"e.g. instead of {self.__name__}.{name}, do {self.__name__}().{name}"
            )
        if "user_cls" not in self.__dict__:  # being unpickled
            raise AttributeError(name)
        return getattr(self.user_cls, name)

    def stop(self) -> None:
        """Stops all its objects."""
        with self._lock:
            containers = list(self._containers.values())
            self._containers = {}
        for container in containers:
            container.stop()

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Cls:
        """The same class, with batches of its own.

        Raises:
            InvalidError: as `batched`.
        """
        return Cls(
            self.user_cls, batching=batching(max_batch_size, wait_ms), max_inputs=self.max_inputs
        )

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Cls:
        """The same class, with so many batches (or calls) at once.

        Raises:
            InvalidError: as `concurrent`.
        """
        most = concurrency(max_inputs, target_inputs)
        return Cls(self.user_cls, batching=self.batching, max_inputs=most)

    def with_options(self, **options: Any) -> Cls:
        """The same class; options describe containers and are ignored."""
        tell_ignored(self.__name__, known_options("with_options", options))
        return Cls(self.user_cls, batching=self.batching, max_inputs=self.max_inputs)

    def __reduce__(self) -> Any:
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<carpool.compat.modal.Cls {self.__name__}>"
